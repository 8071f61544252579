"""The sparse group LASSO: groups that are zero, and zero entries in the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from ramda_theory.arrays import Array, largest, namespace, real, to_float64, to_host, total
from ramda_theory.extras import needs
from ramda_theory.regularizers.grouped import Grouped, ball_residual, norms_of, per_entry, shrink
from ramda_theory.regularizers.grouping import Groups, Span
from ramda_theory.regularizers.kernel import KernelSpec
from ramda_theory.regularizers.pieces import margin, positive, same_shape, signs, soft_threshold
from ramda_theory.regularizers.scalar_equation import group_lasso_minimizer
from ramda_theory.structure import SignPattern


@dataclass(frozen=True)
class SparseGroupLasso(Grouped):
    """weight (l1_ratio ||w||_1 + (1 - l1_ratio) sum_g sqrt(n_g) ||w_g||).

    Parameters
    ----------
    weight : float
        lambda >= 0.
    l1_ratio : float
        Share of the l1 norm, in [0, 1].
    dims, size_scaled, labels, view, spans, counts
        As in `GroupLasso`.
    """

    l1_ratio: float
    dims: tuple[int, ...] = (0,)
    size_scaled: bool = True
    labels: tuple[int, ...] | None = None
    view: tuple[int, ...] | None = None
    spans: tuple[Span, ...] | None = None
    counts: tuple[int, ...] | None = None
    norm: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        ratio = real("l1_ratio", self.l1_ratio, minimum=0.0)
        if ratio > 1:
            raise ValueError(f"l1_ratio must be in [0, 1], got {self.l1_ratio!r}")
        object.__setattr__(self, "l1_ratio", ratio)

    @property
    def _l1_weight(self) -> float:
        return self.weight * self.l1_ratio

    def _with_group_factor(self, factor: float) -> Grouped:
        groups = self.weight * (1.0 - self.l1_ratio) * factor
        weight = self._l1_weight + groups
        return replace(self, weight=weight, l1_ratio=self._l1_weight / weight if weight else self.l1_ratio)

    def _radius(self, xp: ModuleType, groups: Groups, like: Array) -> Array | float:
        return self._scaled(xp, groups, self.weight * (1.0 - self.l1_ratio), like)

    def kernel(self) -> KernelSpec | None:
        if self.labels is not None or self.spans is not None:
            return None
        group_weight = self.weight * (1.0 - self.l1_ratio)
        return KernelSpec(
            "l1",
            self._l1_weight,
            group_weight=group_weight,
            size_scaled=self.size_scaled,
            dims=self.dims,
            view=self.view,
        )

    def value(self, w: Array) -> Array:
        xp = namespace(w=w)
        group_part = self._radius(xp, self.groups(w), w) * self.group_norms(w)
        return self._l1_weight * total(xp, xp.abs(w)) + total(xp, group_part)

    def prox(self, z: Array, step: Array | float = 1.0) -> Array:
        """Soft-threshold by step l1_ratio weight, then shrink the groups (the two proximal maps compose)."""
        xp = namespace(z=z)
        groups = self.groups(z)
        soft = soft_threshold(xp, to_float64(xp, z), per_entry(xp, groups, step) * self._l1_weight)
        shrunk = shrink(xp, groups, soft, self.group_norms(soft), step * self._radius(xp, groups, z))
        return xp.astype(shrunk, z.dtype)

    def metric_prox(self, linear: Array, diag: Array, scale: Array | float = 1.0) -> Array:
        """argmin_x <linear, x> + 1/2 <x, diag x> + scale psi(x), exact.

        Soft-threshold -linear by scale l1_ratio weight, then solve the group LASSO in the metric.

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
        b = soft_threshold(xp, -to_float64(xp, linear), scale * self._l1_weight)
        x = group_lasso_minimizer(xp, groups, b, positive(xp, diag), scale * self._radius(xp, groups, linear))
        return xp.astype(x, linear.dtype)

    def subdifferential_residual(self, w: Array, g: Array, scale: Array | float = 1.0) -> Array:
        """The l1 part entry by entry, then the group part of what is left."""
        xp = namespace(w=w, g=g)
        same_shape(w=w, g=g)
        groups, g = self.groups(w), to_float64(xp, g)
        l1 = scale * self._l1_weight
        left = xp.where(w == 0, soft_threshold(xp, g, l1), xp.where(w > 0, g + l1, g - l1))
        return ball_residual(xp, groups, w, left, self.group_norms(w), scale * self._radius(xp, groups, w))

    def nondegeneracy_margin(self, w: Array, g: Array) -> Array:
        """Zero groups: 1 - gauge of -g_g in the sum of the box and the ball; zero entries elsewhere: 1 - |g_i| / l1."""
        xp = namespace(w=w, g=g)
        same_shape(w=w, g=g)
        groups, g = self.groups(w), to_float64(xp, g)
        zero_group = self.group_norms(w) == 0
        if self.weight == 0:
            return xp.asarray(1.0, dtype=xp.float64, device=w.device)
        margins = margin(xp, self._gauge(xp, groups, g) / self.weight, zero_group)
        if self._l1_weight > 0:
            inactive = (w == 0) & ~groups.spread(xp, zero_group)
            margins = xp.minimum(margins, margin(xp, xp.abs(g) / self._l1_weight, inactive))
        return margins

    def surely_zero(self, g: np.ndarray, radius: Callable[[np.ndarray], float]) -> np.ndarray:
        """Groups with ||soft(g_g, l1)|| + radius_g below their part, as soft is nonexpansive; entries as for l1."""
        flat, l1 = g.ravel(), self._l1_weight
        zero = np.array([abs(flat[i]) + radius(np.array([i])) < l1 for i in range(flat.size)], dtype=bool)
        indices = self.grouping.indices(g.shape)
        parts = np.broadcast_to(np.asarray(self._radius(np, self.groups(g), g)), (len(indices),))
        for entries, part in zip(indices, parts, strict=True):
            left = np.maximum(np.abs(flat[entries]) - l1, 0.0)
            if np.linalg.norm(left) + radius(entries) < part:
                zero[entries] = True
        return zero.reshape(g.shape)

    def critical_weight(self, g: Array) -> Array:
        """Largest gauge of g_g in the sum of a box and a ball, of radii l1_ratio and (1 - l1_ratio) sqrt(n_g)."""
        xp = namespace(g=g)
        return largest(xp, self._gauge(xp, self.groups(g), to_float64(xp, g)))

    def _gauge(self, xp: ModuleType, groups: Groups, g: Array) -> Array:
        """Per group, the least t with ||soft(g, t l1_ratio)|| <= t r, r the radius for weight 1.

        phi(t) = ||soft(g, t l1_ratio)|| - t r is convex and decreasing, so Newton's method from t = 0 increases to
        the root; phi is smooth between the sorted |g_i|, hence the few steps.
        """
        radius = self._scaled(xp, groups, 1.0 - self.l1_ratio, g)
        t = 0.0 * groups.total(xp, g)
        for _ in range(200):
            soft = soft_threshold(xp, xp.abs(g), groups.spread(xp, t) * self.l1_ratio)
            size = norms_of(xp, groups, soft)
            slope = self.l1_ratio * groups.total(xp, soft) / xp.where(size > 0, size, xp.ones_like(size)) + radius
            step = (size - t * radius) / xp.where(slope > 0, slope, xp.ones_like(slope))
            if not bool(xp.any(step > 4e-16 * t)):
                break
            t = xp.where(step > 0, t + step, t)
        return t

    def structure(self, w: Array) -> SignPattern:
        """Sign of every entry, which settles the zero groups too (`group_support` names those)."""
        namespace(w=w)
        self.groups(w)  # refuses axes that w does not have
        found = signs(to_host(w))
        return SignPattern(found if self.view is None else found.reshape(self.view))

    def manifold_hessian(self, w: Array) -> Callable[[Array], Array]:
        """That of the group part, on the nonzero entries."""
        xp = namespace(w=w)
        product = self._radial_hessian(w, self._radius(xp, self.groups(w), w), 0.0)
        active = to_float64(xp, xp.sign(xp.abs(w)))
        return lambda d: active * product(active * d)

    def cvxpy_expression(self, x: Any, shape: tuple[int, ...]) -> Any:
        """weight (l1_ratio ||x||_1 + (1 - l1_ratio) sum_g sqrt(n_g) ||x_g||)."""
        with needs("experiments"):
            import cvxpy as cp

        return self.weight * (self.l1_ratio * cp.norm1(x) + (1.0 - self.l1_ratio) * self._cvxpy_norms(x, shape))
