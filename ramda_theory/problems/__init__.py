"""Problems F = f + psi with exact and stochastic gradients, and their reference solutions; see `Problem`."""

from collections.abc import Callable

from ramda_theory.problems.base import Problem
from ramda_theory.problems.classification import binary_logistic, breast_cancer, digits, multinomial_logistic
from ramda_theory.problems.matrix_product import factorisation
from ramda_theory.problems.network import teacher
from ramda_theory.problems.planted import group_lasso, lasso, low_rank, mcp
from ramda_theory.problems.regression import least_squares
from ramda_theory.problems.solution import Reference

PROBLEMS: dict[str, Callable[..., Problem]] = {
    "digits": digits,
    "breast-cancer": breast_cancer,
    "lasso": lasso,
    "group-lasso": group_lasso,
    "low-rank": low_rank,
    "mcp": mcp,
    "factorisation": factorisation,
    "teacher": teacher,
}
"""Name on the command line -> factory; all take ``weight`` (None: a sensible one), generated data take ``seed``."""

__all__ = [
    "PROBLEMS",
    "Problem",
    "Reference",
    "binary_logistic",
    "breast_cancer",
    "digits",
    "factorisation",
    "group_lasso",
    "lasso",
    "least_squares",
    "low_rank",
    "mcp",
    "multinomial_logistic",
    "teacher",
]
