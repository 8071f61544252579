"""What regularizers that are sums over entries share: every question is answered entry by entry."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from ramda_theory.arrays import Array, largest, namespace, to_float64, to_host, total
from ramda_theory.regularizers.base import Regularizer
from ramda_theory.regularizers.pieces import margin, positive, same_shape, signs, soft_threshold
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

    def _bend(self, xp: ModuleType, size: Array) -> Array | float:
        """phi'' of the absolute values ``size`` > 0."""
        return 0.0

    def _branch(self, size: np.ndarray) -> np.ndarray:
        """Which smooth branch of phi each absolute value is on, from 1."""
        return np.ones(size.shape, dtype=np.int8)

    def value(self, w: Array) -> Array:
        xp = namespace(w=w)
        return total(xp, self._phi(xp, xp.abs(to_float64(xp, w))))

    def prox(self, z: Array, step: Array | float = 1.0) -> Array:
        xp = namespace(z=z)
        return xp.astype(self._solve(xp, to_float64(xp, z), xp.ones_like(to_float64(xp, z)), step), z.dtype)

    def metric_prox(self, linear: Array, diag: Array, scale: Array | float = 1.0) -> Array:
        """argmin_x <linear, x> + 1/2 <x, diag x> + scale psi(x), the global minimiser for every diag > 0.

        Where two points tie, the one closer to zero (the simpler structure) is returned.

        Parameters
        ----------
        linear, diag : arrays of one shape
            Linear term, and the diagonal of the metric, positive.
        scale : float
            Factor of psi, >= 0; alpha of (4) of arXiv:2403.14398.

        Returns
        -------
        array
            Like ``linear``, with exact zeros.

        Raises
        ------
        ValueError
            If the shapes differ, or an entry of ``diag`` is not positive (on a device: NaN in its piece instead).
        """
        xp = namespace(linear=linear, diag=diag)
        same_shape(linear=linear, diag=diag)
        return xp.astype(self._solve(xp, -to_float64(xp, linear), positive(xp, diag), scale), linear.dtype)

    def piece_axes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """None: every entry is a piece."""
        return ()

    def group_max(self, diag: Array) -> Array:
        """Every entry is a piece of its own: ``diag`` itself."""
        return diag

    def subdifferential_residual(self, w: Array, g: Array, scale: Array | float = 1.0) -> Array:
        """Entries g_i + scale phi'(|w_i|) sign w_i, or g_i moved towards 0 by at most scale * weight where w_i = 0."""
        xp = namespace(w=w, g=g)
        same_shape(w=w, g=g)
        w, g = to_float64(xp, w), to_float64(xp, g)
        active = g + scale * self._slope(xp, xp.abs(w)) * xp.sign(w)
        return xp.where(w == 0, soft_threshold(xp, g, scale * self.weight), active)

    def nondegeneracy_margin(self, w: Array, g: Array) -> Array:
        """1 - max |g_i| / weight over the zero entries."""
        xp = namespace(w=w, g=g)
        same_shape(w=w, g=g)
        if self.weight == 0:
            return xp.asarray(1.0, dtype=xp.float64, device=w.device)
        return margin(xp, xp.abs(to_float64(xp, g)) / self.weight, w == 0)

    def surely_zero(self, g: np.ndarray, radius: Callable[[np.ndarray], float]) -> np.ndarray:
        """|g_i| + radius_i < weight, if psi is convex."""
        if not self.convex:
            return super().surely_zero(g, radius)
        radii = np.array([radius(np.array([i])) for i in range(g.size)]).reshape(g.shape)
        zero: np.ndarray = np.abs(g) + radii < self.weight
        return zero

    def piece_sizes(self, w: Array, g: Array) -> tuple[Array, Array] | None:
        """|w_i| and |g_i| / weight; None for a weight of 0."""
        xp = namespace(w=w, g=g)
        if self.weight == 0:
            return None
        return xp.reshape(xp.abs(to_float64(xp, w)), (-1,)), xp.reshape(xp.abs(to_float64(xp, g)), (-1,)) / self.weight

    def critical_weight(self, g: Array) -> Array:
        """max |g_i|."""
        xp = namespace(g=g)
        return largest(xp, xp.abs(to_float64(xp, g)))

    def manifold_hessian(self, w: Array) -> Callable[[Array], Array]:
        """phi''(|w_i|) d_i where w_i is not zero."""
        xp = namespace(w=w)
        bend = xp.where(w == 0, 0.0, self._bend(xp, xp.abs(to_float64(xp, w))) + 0.0 * to_float64(xp, w))
        return lambda d: bend * d

    def structure(self, w: Array) -> SignPattern:
        namespace(w=w)
        w = to_float64(np, to_host(w))
        return SignPattern(signs(w) * self._branch(np.abs(w)))
