"""Regularizers of group norms: GroupLasso, SparseGroupLasso, GroupMCP, and the scalar equation of a diagonal metric."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import ModuleType
from typing import ClassVar

import numpy as np

from ramda_theory.arrays import Array, largest, namespace, real, to_host, total, wide
from ramda_theory.regularizers.base import Regularizer, margin, same_shape, signs, soft_threshold
from ramda_theory.regularizers.grouping import AxisGroups, Groups, LabelGroups
from ramda_theory.regularizers.kernel import KernelSpec
from ramda_theory.regularizers.scalar_equation import group_lasso_minimizer
from ramda_theory.regularizers.separable import mcp_minimizer
from ramda_theory.structure import GroupSupport, SignPattern


def integers(name: str, values: Sequence[int] | int) -> tuple[int, ...]:
    """``values`` as a tuple of ints; anything that is not an integer or a sequence of them is a TypeError."""
    try:
        return tuple(operator.index(value) for value in (values if hasattr(values, "__iter__") else (values,)))
    except TypeError as error:
        raise TypeError(f"{name} must be an integer or a sequence of integers, got {values!r}") from error


axis_groups = lru_cache(maxsize=64)(AxisGroups)


class Grouped(Regularizer):
    """What regularizers of ||w_g|| share: the groups, their sizes, and which of them are zero."""

    dims: tuple[int, ...]
    size_scaled: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "dims", integers("dims", self.dims))
        if not isinstance(self.size_scaled, (bool, np.bool_)):
            raise TypeError(f"size_scaled must be True or False, got {self.size_scaled!r}")

    def groups(self, array: Array) -> Groups:
        """How the entries of ``array`` form groups."""
        return AxisGroups(self.dims, array.shape)

    def _scaled(self, xp: ModuleType, groups: Groups, weight: float, like: Array) -> Array | float:
        """Weight of each group: ``weight`` times the root of the group's size, if sizes count."""
        return weight * groups.root_sizes(xp, like) if self.size_scaled else weight

    def group_weights(self, w: Array) -> Array | float:
        """weight_g of each group of an array like ``w``: a scalar, or a vector where labels are given."""
        return self._scaled(namespace(w=w), self.groups(w), self.weight, w)

    def group_norms(self, w: Array) -> Array:
        """||w_g|| of every group, float64 (reduced axes kept with length one; a vector where labels are given)."""
        xp = namespace(w=w)
        groups, w = self.groups(w), wide(xp, w)
        scale = groups.max(xp, xp.abs(w))  # squares of denormal entries must not vanish
        scale = xp.where((scale > 0) & xp.isfinite(scale), scale, xp.ones_like(scale))
        return scale * xp.sqrt(groups.total(xp, (w / groups.spread(xp, scale)) ** 2))

    def group_max(self, diag: Array) -> Array:
        """Largest entry of ``diag`` in each group, in the shape `prox` takes one step per group."""
        return self.groups(diag).max(namespace(diag=diag), diag)

    def spread(self, per_group: Array, like: Array) -> Array:
        """One number per group laid out so that it multiplies the entries of ``like``."""
        return self.groups(like).spread(namespace(like=like), per_group)

    def group_support(self, w: Array) -> GroupSupport:
        """Which groups of ``w`` are nonzero, from exact zeros."""
        # Asked after every step of a run, of arrays of one shape: short cuts count.
        if type(w) is not np.ndarray or w.dtype.kind != "f":
            namespace(w=w)
        w = to_host(w)
        groups = axis_groups(self.dims, w.shape) if getattr(self, "labels", None) is None else self.groups(w)
        if isinstance(groups, AxisGroups):
            pattern = np.logical_or.reduce(w, axis=groups.axes, keepdims=True)
        else:
            pattern = np.bincount(groups.index, weights=w != 0, minlength=len(groups.sizes)) > 0
        return GroupSupport(pattern.view(np.int8), groups.sizes)


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
    """

    dims: tuple[int, ...] = (0,)
    size_scaled: bool = True
    labels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels is not None:
            object.__setattr__(self, "labels", integers("labels", self.labels))
            if self.dims != (0,):
                raise ValueError(f"dims and labels exclude each other, got dims {self.dims} and labels")

    @cached_property
    def _label_groups(self) -> LabelGroups:
        labels = np.asarray(self.labels, dtype=np.int64)
        return LabelGroups(labels, labels.shape)

    def groups(self, array: Array) -> Groups:
        if self.labels is None:
            return super().groups(array)
        if tuple(array.shape) != (len(self.labels),):
            raise ValueError(f"labels give groups of a vector of {len(self.labels)} entries, got {tuple(array.shape)}")
        return self._label_groups

    def kernel(self) -> KernelSpec | None:
        if self.labels is not None:
            return None
        return KernelSpec("l1", 0.0, group_weight=self.weight, size_scaled=self.size_scaled, dims=self.dims)

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
        """
        xp = namespace(linear=linear, diag=diag)
        same_shape(linear=linear, diag=diag)
        groups = self.groups(linear)
        threshold = scale * self._scaled(xp, groups, self.weight, linear)
        x = group_lasso_minimizer(xp, groups, -wide(xp, linear), wide(xp, diag), threshold)
        return xp.astype(x, linear.dtype)

    def subdifferential_residual(self, w: Array, g: Array, scale: Array | float = 1.0) -> Array:
        """g_g + scale weight_g w_g / ||w_g||; for a zero group, g_g shortened by at most scale weight_g."""
        xp = namespace(w=w, g=g)
        same_shape(w=w, g=g)
        groups, g = self.groups(w), wide(xp, g)
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

    def critical_weight(self, g: Array) -> Array:
        """max ||g_g|| / sqrt(n_g)."""
        xp = namespace(g=g)
        return largest(xp, self.group_norms(g) / self._scaled(xp, self.groups(g), 1.0, g))

    def structure(self, w: Array) -> GroupSupport:
        return self.group_support(w)


@dataclass(frozen=True)
class SparseGroupLasso(Grouped):
    """weight (l1_ratio ||w||_1 + (1 - l1_ratio) sum_g sqrt(n_g) ||w_g||).

    Parameters
    ----------
    weight : float
        lambda >= 0.
    l1_ratio : float
        Share of the l1 norm, in [0, 1].
    dims, size_scaled
        As in `GroupLasso`.
    """

    l1_ratio: float
    dims: tuple[int, ...] = (0,)
    size_scaled: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        ratio = real("l1_ratio", self.l1_ratio, minimum=0.0)
        if ratio > 1:
            raise ValueError(f"l1_ratio must be in [0, 1], got {self.l1_ratio!r}")
        object.__setattr__(self, "l1_ratio", ratio)

    @property
    def _l1_weight(self) -> float:
        return self.weight * self.l1_ratio

    def _radius(self, xp: ModuleType, groups: Groups, like: Array) -> Array | float:
        return self._scaled(xp, groups, self.weight * (1.0 - self.l1_ratio), like)

    def kernel(self) -> KernelSpec:
        group_weight = self.weight * (1.0 - self.l1_ratio)
        return KernelSpec(
            "l1", self._l1_weight, group_weight=group_weight, size_scaled=self.size_scaled, dims=self.dims
        )

    def value(self, w: Array) -> Array:
        xp = namespace(w=w)
        group_part = self._radius(xp, self.groups(w), w) * self.group_norms(w)
        return self._l1_weight * total(xp, xp.abs(w)) + total(xp, group_part)

    def prox(self, z: Array, step: Array | float = 1.0) -> Array:
        """Soft-threshold by step l1_ratio weight, then shrink the groups (the two proximal maps compose)."""
        xp = namespace(z=z)
        groups = self.groups(z)
        soft = soft_threshold(xp, wide(xp, z), step * self._l1_weight)
        shrunk = shrink(xp, groups, soft, self.group_norms(soft), step * self._radius(xp, groups, z))
        return xp.astype(shrunk, z.dtype)

    def metric_prox(self, linear: Array, diag: Array, scale: Array | float = 1.0) -> Array:
        """Soft-threshold -linear by scale l1_ratio weight, then solve the group LASSO in the metric; exact."""
        xp = namespace(linear=linear, diag=diag)
        same_shape(linear=linear, diag=diag)
        groups = self.groups(linear)
        b = soft_threshold(xp, -wide(xp, linear), scale * self._l1_weight)
        x = group_lasso_minimizer(xp, groups, b, wide(xp, diag), scale * self._radius(xp, groups, linear))
        return xp.astype(x, linear.dtype)

    def subdifferential_residual(self, w: Array, g: Array, scale: Array | float = 1.0) -> Array:
        """The l1 part entry by entry, then the group part of what is left."""
        xp = namespace(w=w, g=g)
        same_shape(w=w, g=g)
        groups, g = self.groups(w), wide(xp, g)
        l1 = scale * self._l1_weight
        left = xp.where(w == 0, soft_threshold(xp, g, l1), g + l1 * wide(xp, xp.sign(w)))
        return ball_residual(xp, groups, w, left, self.group_norms(w), scale * self._radius(xp, groups, w))

    def nondegeneracy_margin(self, w: Array, g: Array) -> Array:
        """Zero groups: 1 - gauge of -g_g in the sum of the box and the ball; zero entries elsewhere: 1 - |g_i| / l1."""
        xp = namespace(w=w, g=g)
        same_shape(w=w, g=g)
        groups, g = self.groups(w), wide(xp, g)
        zero_group = self.group_norms(w) == 0
        if self.weight == 0:
            return xp.asarray(1.0, dtype=xp.float64, device=w.device)
        margins = margin(xp, self._gauge(xp, groups, g) / self.weight, zero_group)
        if self._l1_weight > 0:
            inactive = (w == 0) & ~groups.spread(xp, zero_group)
            margins = xp.minimum(margins, margin(xp, xp.abs(g) / self._l1_weight, inactive))
        return margins

    def critical_weight(self, g: Array) -> Array:
        """Largest gauge of g_g in the sum of a box and a ball, of radii l1_ratio and (1 - l1_ratio) sqrt(n_g)."""
        xp = namespace(g=g)
        return largest(xp, self._gauge(xp, self.groups(g), wide(xp, g)))

    def _gauge(self, xp: ModuleType, groups: Groups, g: Array) -> Array:
        """Per group, the least t with ||soft(g, t l1_ratio)|| <= t r, r the radius for weight 1.

        phi(t) = ||soft(g, t l1_ratio)|| - t r is convex and decreasing, so Newton's method from t = 0 increases to
        the root; phi is smooth between the sorted |g_i|, hence the few steps.
        """
        radius = self._scaled(xp, groups, 1.0 - self.l1_ratio, g)
        t = 0.0 * groups.total(xp, g)
        for _ in range(200):
            soft = soft_threshold(xp, xp.abs(g), groups.spread(xp, t) * self.l1_ratio)
            size = xp.sqrt(groups.total(xp, soft**2))
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
        return SignPattern(signs(to_host(w)))


@dataclass(frozen=True)
class GroupMCP(Grouped):
    """sum_g MCP(weight sqrt(n_g), gamma)(||w_g||).

    Parameters
    ----------
    weight : float
        lambda >= 0.
    gamma : float
        Reach, > 0, as in `MCP`.  Weak convexity 1/gamma.
    dims, size_scaled
        As in `GroupLasso`.
    """

    gamma: float
    dims: tuple[int, ...] = (0,)
    size_scaled: bool = True
    convex: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "gamma", real("gamma", self.gamma, minimum=0.0, strict=True))

    @property
    def weak_convexity(self) -> float:
        return 1.0 / self.gamma

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
        return xp.astype(wide(xp, z) * groups.spread(xp, ratio), z.dtype)

    def has_metric_prox(self, diag: Array, scale: Array | float = 1.0) -> bool:
        """Whether diag > scale/gamma everywhere, which makes the subproblem convex."""
        return bool(namespace(diag=diag).all(wide(namespace(diag=diag), diag) > scale / self.gamma))

    def metric_prox(self, linear: Array, diag: Array, scale: Array | float = 1.0) -> Array:
        """Group LASSO in the metric diag - scale/gamma, or -linear/diag where that lies on the flat branch.

        Raises
        ------
        ValueError
            Where some diag <= scale/gamma: no exact method is known there (`has_metric_prox` tells).
        """
        xp = namespace(linear=linear, diag=diag)
        same_shape(linear=linear, diag=diag)
        if not self.has_metric_prox(diag, scale):
            raise ValueError(
                f"diag must exceed scale/gamma = {scale / self.gamma:.3g} everywhere for an exact GroupMCP solution"
            )
        groups, b, diag = self.groups(linear), -wide(xp, linear), wide(xp, diag)
        lam = self._scaled(xp, groups, self.weight, linear)
        curved = group_lasso_minimizer(xp, groups, b, diag - scale / self.gamma, scale * lam)
        flat = b / diag
        is_flat = xp.sqrt(groups.total(xp, flat**2)) > self.gamma * lam
        return xp.astype(xp.where(groups.spread(xp, is_flat), flat, curved), linear.dtype)

    def subdifferential_residual(self, w: Array, g: Array, scale: Array | float = 1.0) -> Array:
        """g_g + scale max(weight_g - ||w_g||/gamma, 0) w_g/||w_g||; a zero group as in `GroupLasso`."""
        xp = namespace(w=w, g=g)
        same_shape(w=w, g=g)
        groups, g, norms = self.groups(w), wide(xp, g), self.group_norms(w)
        slope = self._scaled(xp, groups, self.weight, w) - norms / self.gamma
        return ball_residual(xp, groups, w, g, norms, scale * xp.maximum(slope, xp.zeros_like(slope)))

    def nondegeneracy_margin(self, w: Array, g: Array) -> Array:
        """1 - max ||g_g|| / weight_g over the zero groups."""
        return GroupLasso(self.weight, self.dims, self.size_scaled).nondegeneracy_margin(w, g)

    def critical_weight(self, g: Array) -> Array:
        """max ||g_g|| / sqrt(n_g)."""
        return GroupLasso(self.weight, self.dims, self.size_scaled).critical_weight(g)

    def structure(self, w: Array) -> GroupSupport:
        """Nonzero groups: 1 on the curved branch, 2 on the flat one."""
        support = self.group_support(w)
        norms = self.group_norms(wide(np, to_host(w)))
        flat = norms > self._reach(np, self.groups(w), norms)
        return GroupSupport(support.pattern * (1 + flat.astype(np.int8)), support.sizes)


def shrink(xp: ModuleType, groups: Groups, z: Array, norms: Array, threshold: Array | float) -> Array:
    """z_g max(1 - threshold / ||z_g||, 0)."""
    ratio = (norms - threshold) / xp.where(norms > 0, norms, xp.ones_like(norms))
    ratio = xp.where(norms <= threshold, xp.zeros_like(ratio), ratio)
    return xp.astype(wide(xp, z) * groups.spread(xp, ratio), z.dtype)


def ball_residual(xp: ModuleType, groups: Groups, w: Array, g: Array, norms: Array, radius: Array | float) -> Array:
    """g_g + radius w_g / ||w_g||, or g_g shortened by at most radius where w_g = 0."""
    sizes = xp.sqrt(groups.total(xp, g**2))
    zero = norms == 0
    one = xp.ones_like(norms)
    kept = xp.where(sizes <= radius, xp.zeros_like(sizes), (sizes - radius) / xp.where(sizes > 0, sizes, one))
    unit = wide(xp, w) / groups.spread(xp, xp.where(zero, one, norms))
    return xp.where(groups.spread(xp, zero), g * groups.spread(xp, kept), g + groups.spread(xp, radius * one) * unit)
