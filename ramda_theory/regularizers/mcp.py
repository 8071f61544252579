"""The minimax concave penalty (Zhang 2010): an l1 norm that levels off."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import numpy as np

from ramda_theory.arrays import Array, real
from ramda_theory.regularizers.kernel import KernelSpec
from ramda_theory.regularizers.separable import Separable


@dataclass(frozen=True)
class MCP(Separable):
    """Minimax concave penalty: phi(t) = weight t - t^2 / (2 gamma) up to gamma weight, then gamma weight^2 / 2.

    Parameters
    ----------
    weight : float
        lambda >= 0, the slope at zero.
    gamma : float
        Reach of the penalty, > 0: it is flat beyond ``gamma * weight``.  Weak convexity 1/gamma.
    """

    gamma: float
    convex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "gamma", real("gamma", self.gamma, minimum=0.0, strict=True))

    @property
    def weak_convexity(self) -> float:
        return 1.0 / self.gamma

    def kernel(self) -> KernelSpec:
        return KernelSpec("mcp", self.weight, self.gamma)

    def _phi(self, xp: ModuleType, size: Array) -> Array:
        near = self.weight * size - size**2 / (2.0 * self.gamma)
        return xp.where(size > self.gamma * self.weight, 0.5 * self.gamma * self.weight**2, near)

    def _slope(self, xp: ModuleType, size: Array) -> Array:
        return xp.maximum(self.weight - size / self.gamma, xp.zeros_like(size))

    def _bend(self, xp: ModuleType, size: Array) -> Array:
        return xp.where(size <= self.gamma * self.weight, -1.0 / self.gamma, 0.0 * size)

    def _solve(self, xp: ModuleType, b: Array, diag: Array, scale: Array | float) -> Array:
        return mcp_minimizer(xp, b, diag, scale, self.weight, self.gamma)

    def _branch(self, size: Array) -> Array:
        return 1 + (size > self.gamma * self.weight).astype(np.int8)


def mcp_minimizer(
    xp: ModuleType, b: Array, diag: Array, scale: Array | float, weight: Array | float, gamma: float
) -> Array:
    """argmin_x 1/2 diag x^2 - b x + scale MCP(weight, gamma)(x), elementwise.

    The curvature next to zero is diag - scale/gamma.  Where it is positive the objective is convex with breakpoints
    at |b| = scale weight and |b| = diag gamma weight.  Elsewhere only 0 and b/diag can be minimal, and b/diag is
    lower exactly when b^2 > scale gamma diag weight^2 (which puts it on the flat branch).
    """
    curvature = diag - scale / gamma
    convex = curvature > 0
    size = xp.abs(b)
    curved = (size - scale * weight) / xp.where(convex, curvature, xp.ones_like(curvature))
    zero_up_to = xp.where(convex, scale * weight, weight * xp.sqrt(scale * gamma * diag))
    curved_up_to = xp.where(convex, diag * (gamma * weight), xp.zeros_like(diag))
    x = xp.where(size <= curved_up_to, curved, size / diag)
    return xp.where(size <= zero_up_to, xp.zeros_like(x), xp.where(b < 0, -x, x))
