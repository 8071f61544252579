"""The smoothly clipped absolute deviation (Fan and Li 2001): an l1 norm that levels off in two steps."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import numpy as np

from ramda_theory.arrays import Array, real
from ramda_theory.regularizers.kernel import KernelSpec
from ramda_theory.regularizers.separable import Separable


@dataclass(frozen=True)
class SCAD(Separable):
    """Smoothly clipped absolute deviation.

    phi(t) = weight t up to weight, (2 a weight t - t^2 - weight^2) / (2 (a - 1)) up to a weight, then
    weight^2 (a + 1) / 2.

    Parameters
    ----------
    weight : float
        lambda >= 0, the slope at zero and the first breakpoint.
    a : float
        > 2; the penalty is flat beyond ``a * weight``.  Weak convexity 1/(a - 1).
    """

    a: float
    convex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "a", real("a", self.a, minimum=2.0, strict=True))

    @property
    def weak_convexity(self) -> float:
        return 1.0 / (self.a - 1.0)

    def kernel(self) -> KernelSpec:
        return KernelSpec("scad", self.weight, self.a)

    def _phi(self, xp: ModuleType, size: Array) -> Array:
        lam, a = self.weight, self.a
        middle = (2 * a * lam * size - size**2 - lam**2) / (2 * (a - 1))
        outer = xp.where(size > a * lam, 0.5 * lam**2 * (a + 1), middle)
        return xp.where(size <= lam, lam * size, outer)

    def _slope(self, xp: ModuleType, size: Array) -> Array:
        lam, a = self.weight, self.a
        falling = xp.maximum((a * lam - size) / (a - 1), xp.zeros_like(size))
        return xp.where(size <= lam, lam, falling)

    def _bend(self, xp: ModuleType, size: Array) -> Array:
        falling = (size > self.weight) & (size <= self.a * self.weight)
        return xp.where(falling, -1.0 / (self.a - 1.0), 0.0 * size)

    def _solve(self, xp: ModuleType, b: Array, diag: Array, scale: Array | float) -> Array:
        """Stationary points: soft(b)/diag near zero, one on the falling slope, b/diag on the flat branch.

        With diag > scale/(a - 1) the objective is convex and |b| selects the branch.  Otherwise the falling slope has
        no minimum, and b/diag beats the point near zero exactly when |b| exceeds ``flat_from``.
        """
        lam, a, size = self.weight, self.a, xp.abs(b)
        curvature = diag - scale / (a - 1)
        convex = curvature > 0
        near = xp.maximum(size - scale * lam, xp.zeros_like(size)) / diag
        falling = (size - scale * lam * (a / (a - 1))) / xp.where(convex, curvature, xp.ones_like(curvature))
        beats_zero = lam * xp.sqrt(scale * diag * (a + 1))
        beats_near = 0.5 * lam * (scale + diag * (a + 1))
        flat_from = xp.where(scale >= diag * (a + 1), beats_zero, beats_near)
        near_up_to = xp.where(convex, lam * (diag + scale), flat_from)
        falling_up_to = xp.where(convex, a * lam * diag, xp.zeros_like(diag))
        x = xp.where(size <= near_up_to, near, xp.where(size <= falling_up_to, falling, size / diag))
        return xp.where(x == 0, xp.zeros_like(x), xp.where(b < 0, -x, x))

    def _branch(self, size: Array) -> Array:
        return 1 + (size > self.weight).astype(np.int8) + (size > self.a * self.weight).astype(np.int8)
