"""The l1 norm: entries that are zero."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

from ramda_theory.arrays import Array
from ramda_theory.extras import needs
from ramda_theory.regularizers.kernel import KernelSpec
from ramda_theory.regularizers.pieces import soft_threshold
from ramda_theory.regularizers.separable import Separable


@dataclass(frozen=True)
class L1(Separable):
    """weight ||w||_1.

    Parameters
    ----------
    weight : float
        lambda >= 0.
    """

    norm: ClassVar[bool] = True

    def kernel(self) -> KernelSpec:
        return KernelSpec("l1", self.weight)

    def _phi(self, xp: ModuleType, size: Array) -> Array:
        return self.weight * size

    def _slope(self, xp: ModuleType, size: Array) -> Array:
        return self.weight

    def _solve(self, xp: ModuleType, b: Array, diag: Array, scale: Array | float) -> Array:
        return soft_threshold(xp, b, scale * self.weight) / diag

    def cvxpy_expression(self, x: Any, shape: tuple[int, ...]) -> Any:
        """weight ||x||_1."""
        with needs("experiments"):
            import cvxpy as cp

        return self.weight * cp.norm1(x)
