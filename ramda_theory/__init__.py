"""Regularized dual averaging with a diagonal preconditioner: methods, subproblem solvers and diagnostics."""

from ramda_theory.run import Run, run
from ramda_theory.subproblem import Solution, Subproblem, solve

__all__ = ["Run", "Solution", "Subproblem", "run", "solve"]
