"""Regularizers that are sums over entries: L1, ElasticNet, MCP, SCAD.  Every proximal map is in closed form."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import numpy as np

from ramda_theory.arrays import Array, largest, namespace, real, to_host, total, wide
from ramda_theory.regularizers.base import Regularizer, margin, same_shape, signs, soft_threshold
from ramda_theory.regularizers.kernel import KernelSpec
from ramda_theory.structure import SignPattern


@dataclass(frozen=True)
class Separable(Regularizer):
    """psi(w) = sum_i phi(|w_i|) with phi'(0+) = weight, so that d psi_i(0) = [-weight, weight]."""

    @abstractmethod
    def _phi(self, xp: ModuleType, size: Array) -> Array:
        """phi of the absolute values ``size``."""

    @abstractmethod
    def _slope(self, xp: ModuleType, size: Array) -> Array:
        """phi' of the absolute values ``size`` > 0."""

    @abstractmethod
    def _solve(self, xp: ModuleType, b: Array, diag: Array, scale: Array | float) -> Array:
        """argmin_x 1/2 diag x^2 - b x + scale phi(|x|), elementwise, for every diag > 0."""

    def _branch(self, size: np.ndarray) -> np.ndarray:
        """Which smooth branch of phi each absolute value is on, from 1."""
        return np.ones(size.shape, dtype=np.int8)

    def value(self, w: Array) -> Array:
        xp = namespace(w=w)
        return total(xp, self._phi(xp, xp.abs(wide(xp, w))))

    def prox(self, z: Array, step: Array | float = 1.0) -> Array:
        xp = namespace(z=z)
        return xp.astype(self._solve(xp, wide(xp, z), xp.ones_like(wide(xp, z)), step), z.dtype)

    def metric_prox(self, linear: Array, diag: Array, scale: Array | float = 1.0) -> Array:
        """argmin_x <linear, x> + 1/2 <x, diag x> + scale psi(x), the global minimiser for every diag > 0.

        Where two points tie, the one closer to zero (the simpler structure) is returned.
        """
        xp = namespace(linear=linear, diag=diag)
        same_shape(linear=linear, diag=diag)
        return xp.astype(self._solve(xp, -wide(xp, linear), wide(xp, diag), scale), linear.dtype)

    def group_max(self, diag: Array) -> Array:
        """Every entry is a piece of its own: ``diag`` itself."""
        return diag

    def subdifferential_residual(self, w: Array, g: Array, scale: Array | float = 1.0) -> Array:
        """Entries g_i + scale phi'(|w_i|) sign w_i, or g_i moved towards 0 by at most scale * weight where w_i = 0."""
        xp = namespace(w=w, g=g)
        same_shape(w=w, g=g)
        w, g = wide(xp, w), wide(xp, g)
        active = g + scale * self._slope(xp, xp.abs(w)) * xp.sign(w)
        return xp.where(w == 0, soft_threshold(xp, g, scale * self.weight), active)

    def nondegeneracy_margin(self, w: Array, g: Array) -> Array:
        """1 - max |g_i| / weight over the zero entries."""
        xp = namespace(w=w, g=g)
        same_shape(w=w, g=g)
        if self.weight == 0:
            return xp.asarray(1.0, dtype=xp.float64, device=w.device)
        return margin(xp, xp.abs(wide(xp, g)) / self.weight, w == 0)

    def critical_weight(self, g: Array) -> Array:
        """max |g_i|."""
        xp = namespace(g=g)
        return largest(xp, xp.abs(wide(xp, g)))

    def structure(self, w: Array) -> SignPattern:
        namespace(w=w)
        w = wide(np, to_host(w))
        return SignPattern(signs(w) * self._branch(np.abs(w)))


@dataclass(frozen=True)
class L1(Separable):
    """weight ||w||_1."""

    def kernel(self) -> KernelSpec:
        return KernelSpec("l1", self.weight)

    def _phi(self, xp, size):
        return self.weight * size

    def _slope(self, xp, size):
        return self.weight

    def _solve(self, xp, b, diag, scale):
        return soft_threshold(xp, b, scale * self.weight) / diag


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

    def kernel(self) -> KernelSpec:
        return KernelSpec("l1", self.weight, self.l2)

    def _phi(self, xp, size):
        return self.weight * size + 0.5 * self.l2 * size**2

    def _slope(self, xp, size):
        return self.weight + self.l2 * size

    def _solve(self, xp, b, diag, scale):
        return soft_threshold(xp, b, scale * self.weight) / (diag + scale * self.l2)


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

    def _phi(self, xp, size):
        near = self.weight * size - size**2 / (2.0 * self.gamma)
        return xp.where(size > self.gamma * self.weight, 0.5 * self.gamma * self.weight**2, near)

    def _slope(self, xp, size):
        return xp.maximum(self.weight - size / self.gamma, xp.zeros_like(size))

    def _solve(self, xp, b, diag, scale):
        return mcp_minimizer(xp, b, diag, scale, self.weight, self.gamma)

    def _branch(self, size):
        return 1 + (size > self.gamma * self.weight).astype(np.int8)


def mcp_minimizer(xp: ModuleType, b: Array, diag: Array, scale: Array | float, weight: Array | float, gamma: float):
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

    def _phi(self, xp, size):
        lam, a = self.weight, self.a
        middle = (2 * a * lam * size - size**2 - lam**2) / (2 * (a - 1))
        outer = xp.where(size > a * lam, 0.5 * lam**2 * (a + 1), middle)
        return xp.where(size <= lam, lam * size, outer)

    def _slope(self, xp, size):
        lam, a = self.weight, self.a
        falling = xp.maximum((a * lam - size) / (a - 1), xp.zeros_like(size))
        return xp.where(size <= lam, lam, falling)

    def _solve(self, xp, b, diag, scale):
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

    def _branch(self, size):
        return 1 + (size > self.weight).astype(np.int8) + (size > self.a * self.weight).astype(np.int8)
