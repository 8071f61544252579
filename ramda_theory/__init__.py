"""Regularized dual averaging with a diagonal preconditioner: methods, subproblem solvers and diagnostics."""

from ramda_theory.diagnostics import Certificate, Screen, certify, regularization_path, screen
from ramda_theory.run import Run, run
from ramda_theory.second_phase import SecondPhase
from ramda_theory.subproblem import Solution, Subproblem, solve

__all__ = [
    "Certificate",
    "Run",
    "Screen",
    "SecondPhase",
    "Solution",
    "Subproblem",
    "certify",
    "regularization_path",
    "run",
    "screen",
    "solve",
]
