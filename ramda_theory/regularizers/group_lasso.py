"""The group LASSO: groups that are zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ramda_theory.arrays import Array, largest, namespace, to_float64, total
from ramda_theory.regularizers.grouped import Grouped, ball_residual, shrink
from ramda_theory.regularizers.grouping import Span
from ramda_theory.regularizers.kernel import KernelSpec
from ramda_theory.regularizers.pieces import margin, positive, same_shape
from ramda_theory.regularizers.scalar_equation import group_lasso_minimizer
from ramda_theory.structure import GroupSupport


@dataclass(frozen=True)
class GroupLasso(Grouped):
    """weight sum_g sqrt(n_g) ||w_g||.

    Parameters
    ----------
    weight : float
        lambda >= 0.
    dims : tuple of int
        Axes a group norm is taken over (negative ones count from the end).  ``(0,)`` makes one group of every column:
        for the weight of ``torch.nn.Linear``, one per input feature.
    size_scaled : bool
        Multiply each group's weight by the root of its size n_g.
    labels : sequence of int, optional
        Instead of ``dims``: one integer per entry of a vector; equal labels form a group.
    view : tuple of int, optional
        Shape in which ``dims`` name axes, as many entries as the array in C order.  With rows that are heads times
        features, ``GroupLasso(weight, dims=(1, 2), view=(heads, features, columns))`` makes one group of each head.
    spans : sequence of (shape, axis, indices), optional
        Instead: groups that span several arrays, of a vector that holds the entries of all of them, one array after the
        other.  The slice at position i along ``axis`` of an array belongs to group ``indices[i]``.
    counts : sequence of int, optional
        With ``spans``: the sizes n_g, where these are not the groups' own because zeros have been cut out of them.
    """

    dims: tuple[int, ...] = (0,)
    size_scaled: bool = True
    labels: tuple[int, ...] | None = None
    view: tuple[int, ...] | None = None
    spans: tuple[Span, ...] | None = None
    counts: tuple[int, ...] | None = None
    sum_of_group_norms: ClassVar[bool] = True
    norm: ClassVar[bool] = True

    def kernel(self) -> KernelSpec | None:
        if self.labels is not None or self.spans is not None:
            return None
        return KernelSpec(
            "l1", 0.0, group_weight=self.weight, size_scaled=self.size_scaled, dims=self.dims, view=self.view
        )

    def value(self, w: Array) -> Array:
        xp = namespace(w=w)
        return total(xp, self._scaled(xp, self.groups(w), self.weight, w) * self.group_norms(w))

    def prox(self, z: Array, step: Array | float = 1.0) -> Array:
        """z_g max(1 - step weight_g / ||z_g||, 0)."""
        xp = namespace(z=z)
        groups, norms = self.groups(z), self.group_norms(z)
        return shrink(xp, groups, z, norms, step * self._scaled(xp, groups, self.weight, z))

    def metric_prox(self, linear: Array, diag: Array, scale: Array | float = 1.0) -> Array:
        """argmin_x <linear, x> + 1/2 <x, diag x> + scale psi(x), exact; see `group_lasso_minimizer`.

        Errors of 1e-14 (float64) and 1e-7 (float32, with float64 totals) away from the threshold of a group.

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
        groups = self.groups(linear)
        threshold = scale * self._scaled(xp, groups, self.weight, linear)
        x = group_lasso_minimizer(xp, groups, -to_float64(xp, linear), positive(xp, diag), threshold)
        return xp.astype(x, linear.dtype)

    def subdifferential_residual(self, w: Array, g: Array, scale: Array | float = 1.0) -> Array:
        """g_g + scale weight_g w_g / ||w_g||; for a zero group, g_g shortened by at most scale weight_g."""
        xp = namespace(w=w, g=g)
        same_shape(w=w, g=g)
        groups, g = self.groups(w), to_float64(xp, g)
        radius = scale * self._scaled(xp, groups, self.weight, w)
        return ball_residual(xp, groups, w, g, self.group_norms(w), radius)

    def nondegeneracy_margin(self, w: Array, g: Array) -> Array:
        """1 - max ||g_g|| / weight_g over the zero groups."""
        xp = namespace(w=w, g=g)
        same_shape(w=w, g=g)
        if self.weight == 0:
            return xp.asarray(1.0, dtype=xp.float64, device=w.device)
        bound = self._scaled(xp, self.groups(w), self.weight, w)
        return margin(xp, self.group_norms(g) / bound, self.group_norms(w) == 0)

    def surely_zero(self, g: np.ndarray, radius: Callable[[np.ndarray], float]) -> np.ndarray:
        """||g_g|| + radius_g < weight_g."""
        zero, indices = np.zeros(g.size, dtype=bool), self.grouping.indices(g.shape)
        bounds = np.broadcast_to(np.asarray(self.group_weights(g)), (len(indices),))
        for entries, bound in zip(indices, bounds, strict=True):
            zero[entries] = np.linalg.norm(g.ravel()[entries]) + radius(entries) < bound
        return zero.reshape(g.shape)

    def piece_sizes(self, w: Array, g: Array) -> tuple[Array, Array] | None:
        """||w_g|| and ||g_g|| / weight_g; None for a weight of 0."""
        xp = namespace(w=w, g=g)
        if self.weight == 0:
            return None
        ratios = self.group_norms(g) / self._scaled(xp, self.groups(g), self.weight, g)
        return xp.reshape(self.group_norms(w), (-1,)), xp.reshape(ratios, (-1,))

    def critical_weight(self, g: Array) -> Array:
        """max ||g_g|| / sqrt(n_g)."""
        xp = namespace(g=g)
        return largest(xp, self.group_norms(g) / self._scaled(xp, self.groups(g), 1.0, g))

    def structure(self, w: Array) -> GroupSupport:
        return self.group_support(w)

    def tangent(self, w: Array, direction: Array) -> Array:
        """``direction`` in the nonzero groups of ``w``."""
        return self._tangent_of_groups(w, direction)

    def manifold_hessian(self, w: Array) -> Callable[[Array], Array]:
        """weight_g / ||w_g|| (d - u <u, d>), u = w_g / ||w_g||, in the nonzero groups."""
        return self._radial_hessian(w, self.group_weights(w), 0.0)

    def cvxpy_expression(self, x: Any, shape: tuple[int, ...]) -> Any:
        """weight sum_g sqrt(n_g) ||x_g||."""
        return self.weight * self._cvxpy_norms(x, shape)
