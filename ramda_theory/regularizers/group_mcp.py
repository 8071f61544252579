"""The minimax concave penalty of group norms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import ClassVar

import numpy as np

from ramda_theory.arrays import Array, namespace, real, to_float64, to_host, total
from ramda_theory.regularizers.group_lasso import GroupLasso
from ramda_theory.regularizers.group_mcp_equation import group_mcp_minimizer
from ramda_theory.regularizers.grouped import Grouped, ball_residual
from ramda_theory.regularizers.grouping import Groups, Span
from ramda_theory.regularizers.kernel import KernelSpec
from ramda_theory.regularizers.mcp import mcp_minimizer
from ramda_theory.regularizers.pieces import positive, same_shape
from ramda_theory.structure import GroupSupport


@dataclass(frozen=True)
class GroupMCP(Grouped):
    """sum_g MCP(weight sqrt(n_g), gamma)(||w_g||).

    Parameters
    ----------
    weight : float
        lambda >= 0.
    gamma : float
        Reach, > 0, as in `MCP`.  Weak convexity 1/gamma.
    dims, size_scaled, labels, view, spans, counts
        As in `GroupLasso`.
    """

    gamma: float
    dims: tuple[int, ...] = (0,)
    size_scaled: bool = True
    labels: tuple[int, ...] | None = None
    view: tuple[int, ...] | None = None
    spans: tuple[Span, ...] | None = None
    counts: tuple[int, ...] | None = None
    convex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "gamma", real("gamma", self.gamma, minimum=0.0, strict=True))

    @property
    def weak_convexity(self) -> float:
        return 1.0 / self.gamma

    def kernel(self) -> KernelSpec | None:
        if self.labels is not None or self.spans is not None:
            return None
        return KernelSpec(
            "l1",
            0.0,
            group_weight=self.weight,
            size_scaled=self.size_scaled,
            dims=self.dims,
            view=self.view,
            group_gamma=self.gamma,
        )

    def _reach(self, xp: ModuleType, groups: Groups, like: Array) -> Array | float:
        return self.gamma * self._scaled(xp, groups, self.weight, like)

    def value(self, w: Array) -> Array:
        xp = namespace(w=w)
        groups, norms = self.groups(w), self.group_norms(w)
        lam = self._scaled(xp, groups, self.weight, w)
        near = lam * norms - norms**2 / (2.0 * self.gamma)
        return total(xp, xp.where(norms > self.gamma * lam, 0.5 * self.gamma * lam**2, near))

    def prox(self, z: Array, step: Array | float = 1.0) -> Array:
        """z_g scaled to the length MCP's own prox gives ||z_g||: the global minimiser."""
        xp = namespace(z=z)
        groups, norms = self.groups(z), self.group_norms(z)
        lam = self._scaled(xp, groups, self.weight, z)
        length = mcp_minimizer(xp, norms, xp.ones_like(norms), step, lam, self.gamma)
        ratio = length / xp.where(norms > 0, norms, xp.ones_like(norms))
        return xp.astype(to_float64(xp, z) * groups.spread(xp, ratio), z.dtype)

    def metric_prox(self, linear: Array, diag: Array, scale: Array | float = 1.0) -> Array:
        """argmin_x <linear, x> + 1/2 <x, diag x> + scale psi(x), the global one in every metric.

        Where diag > scale/gamma the objective is convex; elsewhere a group has up to two local minima, which
        `group_mcp_minimizer` compares.

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
        groups, b, diag = self.groups(linear), -to_float64(xp, linear), positive(xp, diag)
        if self.weight == 0:
            return xp.astype(b / diag, linear.dtype)
        lam = self._scaled(xp, groups, self.weight, linear)
        x = group_mcp_minimizer(xp, groups, b, diag, scale * lam, scale / self.gamma, self.gamma * lam)
        return xp.astype(x, linear.dtype)

    def subdifferential_residual(self, w: Array, g: Array, scale: Array | float = 1.0) -> Array:
        """g_g + scale max(weight_g - ||w_g||/gamma, 0) w_g/||w_g||; a zero group as in `GroupLasso`."""
        xp = namespace(w=w, g=g)
        same_shape(w=w, g=g)
        groups, g, norms = self.groups(w), to_float64(xp, g), self.group_norms(w)
        slope = self._scaled(xp, groups, self.weight, w) - norms / self.gamma
        return ball_residual(xp, groups, w, g, norms, scale * xp.maximum(slope, xp.zeros_like(slope)))

    def nondegeneracy_margin(self, w: Array, g: Array) -> Array:
        """1 - max ||g_g|| / weight_g over the zero groups."""
        return self._lasso.nondegeneracy_margin(w, g)

    def critical_weight(self, g: Array) -> Array:
        """max ||g_g|| / sqrt(n_g)."""
        return self._lasso.critical_weight(g)

    def structure(self, w: Array) -> GroupSupport:
        """Nonzero groups: 1 on the curved branch, 2 on the flat one."""
        support = self.group_support(w)
        norms = self.group_norms(to_float64(np, to_host(w)))
        flat = norms > self._reach(np, self.groups(w), norms)
        return GroupSupport(support.pattern * (1 + flat.astype(np.int8)), support.sizes)

    @property
    def _lasso(self) -> GroupLasso:
        """What this is next to zero."""
        return GroupLasso(self.weight, self.dims, self.size_scaled, self.labels, self.view)

    def tangent(self, w: Array, direction: Array) -> Array:
        """``direction`` in the nonzero groups of ``w``."""
        return self._tangent_of_groups(w, direction)

    def manifold_hessian(self, w: Array) -> Callable[[Array], Array]:
        """As `GroupLasso` with the slope of the curved branch, and -1/gamma along w_g; zero on the flat branch."""
        xp = namespace(w=w)
        norms, lam = self.group_norms(w), self.group_weights(w)
        slope = lam - norms / self.gamma
        bend = xp.where(norms <= self.gamma * lam, -1.0 / self.gamma, 0.0 * norms)
        return self._radial_hessian(w, xp.maximum(slope, xp.zeros_like(slope)), bend)
