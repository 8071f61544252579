"""The subproblem of every method here, (4) and (6) of arXiv:2403.14398, and its solvers."""

from ramda_theory.subproblem.admm import ADMM
from ramda_theory.subproblem.als import ALS
from ramda_theory.subproblem.exact import Exact, NewtonRaphson
from ramda_theory.subproblem.first_order import Accelerated, ProximalGradient
from ramda_theory.subproblem.perturbation import largest_perturbation, perturbed
from ramda_theory.subproblem.problem import Solution, Subproblem
from ramda_theory.subproblem.reference import Cvxpy
from ramda_theory.subproblem.solve import SOLVERS, solve
from ramda_theory.subproblem.tolerance import ConstantTolerance, GeometricTolerance, PolynomialTolerance

__all__ = [
    "ADMM",
    "ALS",
    "SOLVERS",
    "Accelerated",
    "ConstantTolerance",
    "Cvxpy",
    "Exact",
    "GeometricTolerance",
    "NewtonRaphson",
    "PolynomialTolerance",
    "ProximalGradient",
    "Solution",
    "Subproblem",
    "largest_perturbation",
    "perturbed",
    "solve",
]
