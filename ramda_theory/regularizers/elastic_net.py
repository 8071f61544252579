"""The elastic net: the l1 norm and a square."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ramda_theory.arrays import Array, namespace, real, to_float64, total
from ramda_theory.extras import needs
from ramda_theory.regularizers.kernel import KernelSpec
from ramda_theory.regularizers.pieces import soft_threshold
from ramda_theory.regularizers.separable import Separable


@dataclass(frozen=True)
class ElasticNet(Separable):
    """weight ||w||_1 + l2/2 ||w||^2.

    Parameters
    ----------
    weight : float
        lambda >= 0, of the l1 part.
    l2 : float
        Weight >= 0 of the quadratic part.
    """

    l2: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "l2", real("l2", self.l2, minimum=0.0))

    @property
    def strong_convexity(self) -> float:
        return self.l2

    def conjugate(self, u: Array) -> float:
        """Squares of what |u_i| exceeds the weight by, over 2 l2."""
        xp = namespace(u=u)
        beyond = to_float64(xp, xp.abs(u)) - self.weight
        square = float(total(xp, xp.where(beyond > 0, beyond, xp.zeros_like(beyond)) ** 2))
        return square / (2.0 * self.l2) if self.l2 > 0 else (0.0 if square == 0 else math.inf)

    def kernel(self) -> KernelSpec:
        return KernelSpec("l1", self.weight, self.l2)

    def _phi(self, xp: ModuleType, size: Array) -> Array:
        return self.weight * size + 0.5 * self.l2 * size**2

    def _slope(self, xp: ModuleType, size: Array) -> Array:
        return self.weight + self.l2 * size

    def _bend(self, xp: ModuleType, size: Array) -> Array:
        return self.l2

    def _solve(self, xp: ModuleType, b: Array, diag: Array, scale: Array | float) -> Array:
        return soft_threshold(xp, b, scale * self.weight) / (diag + scale * self.l2)

    def cvxpy_expression(self, x: Any, shape: tuple[int, ...]) -> Any:
        """weight ||x||_1 + l2/2 ||x||^2."""
        with needs("experiments"):
            import cvxpy as cp

        return self.weight * cp.norm1(x) + 0.5 * self.l2 * cp.sum_squares(x)
