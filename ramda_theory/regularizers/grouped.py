"""What regularizers of group norms share: the groups, their sizes and weights, and which of them are zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from ramda_theory.arrays import Array, integers, namespace, to_float64, to_host
from ramda_theory.extras import needs
from ramda_theory.regularizers.base import FORMER, Regularizer
from ramda_theory.regularizers.grouping import Grouping, Groups, Span
from ramda_theory.regularizers.pieces import same_shape
from ramda_theory.structure import GroupSupport

__all__ = ["Grouped", "Reshaped", "integers"]


class Grouped(Regularizer):
    """What regularizers of ||w_g|| share: the groups, their sizes, and which of them are zero."""

    dims: tuple[int, ...]
    size_scaled: bool
    labels: tuple[int, ...] | None
    view: tuple[int, ...] | None
    spans: tuple[Span, ...] | None
    counts: tuple[int, ...] | None
    grouping: ClassVar[Grouping]  # set per instance, from the three fields

    def __post_init__(self) -> None:
        super().__post_init__()
        grouping = Grouping(self.dims, self.labels, self.view, self.spans, self.counts)
        object.__setattr__(self, "grouping", grouping)
        for name in ("dims", "labels", "view", "spans", "counts"):
            object.__setattr__(self, name, getattr(grouping, name))
        if not isinstance(self.size_scaled, (bool, np.bool_)):
            raise TypeError(f"size_scaled must be True or False, got {self.size_scaled!r}")

    def groups(self, array: Array) -> Groups:
        """How the entries of an array form groups.

        Parameters
        ----------
        array : array
            Only its shape counts.

        Returns
        -------
        Groups
            Totals, maxima and sizes of the groups; see `Grouping`.

        Raises
        ------
        ValueError
            If the grouping does not fit the shape.
        """
        return self.grouping.of(array.shape)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        self.grouping.of(shape)

    def describe_pieces(self, shape: tuple[int, ...]) -> str:
        return self.grouping.describe(shape)

    @property
    def tied_to_shape(self) -> bool:
        return any(each is not None for each in (self.labels, self.view, self.spans))

    @property
    def as_groups(self) -> Any:
        """This psi."""
        return self

    @property
    def joint_shapes(self) -> tuple[tuple[int, ...], ...] | None:
        return None if self.spans is None else tuple(shape for shape, _, _ in self.spans)

    def piece_axes(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        return self.grouping.axes(shape)

    def for_slices(self, dims: tuple[int, ...], shape: tuple[int, ...], view: tuple[int, ...]) -> Grouped:
        """Norms are taken over ``dims`` of the array seen in ``view``."""
        return self._with(dims=dims, labels=None, view=None if view == shape else view)

    def spanning(self, spans: tuple[Span, ...]) -> Grouped:
        """The same penalty of groups that span several arrays.

        Parameters
        ----------
        spans : tuple of (shape, axis, indices)
            As in `GroupLasso`.

        Returns
        -------
        Grouped
        """
        return self._with(dims=(0,), spans=spans)

    def of_part(self, shape: tuple[int, ...], kept: Mapping[int, np.ndarray]) -> Grouped:
        """The same penalty of what remains when zeros have been cut out: groups keep their weights."""
        if self.spans is not None:
            raise ValueError("groups that span tensors are cut tensor by tensor")
        mask = np.ones(shape, dtype=bool)
        for axis, index in kept.items():
            mask &= np.isin(np.arange(shape[axis]), index).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        if self.labels is not None:
            left = tuple(np.asarray(self.labels)[mask].tolist())
            sizes = {label: self.labels.count(label) / left.count(label) for label in set(left)}
            return self._heavier(set(sizes.values()) or {1.0}, labels=left)
        seen = mask.reshape(self.view or shape)
        axes = [tuple(i for i in range(seen.ndim) if i != axis) for axis in range(seen.ndim)]
        new = tuple(int(seen.any(axis=others).sum()) for others in axes)
        if math.prod(new) != mask.sum():
            raise ValueError(f"what remains of an array seen as {self.view or shape} is no block of it")
        old_size, new_size = (math.prod(sizes[dim] for dim in self.dims) for sizes in (seen.shape, new))
        return self._heavier({old_size / max(new_size, 1)}, **({} if self.view is None else {"view": new}))

    def of_parts(self, kept: Sequence[Mapping[int, np.ndarray]]) -> Grouped:
        """Groups of which nothing remains are numbered no more; the others keep their weights."""
        if self.spans is None:
            raise ValueError(f"{type(self).__name__} takes one array, not {len(kept)}")
        parts = []
        for (shape, axis, indices), mine in zip(self.spans, kept, strict=True):
            new = tuple(len(mine[i]) if i in mine else n for i, n in enumerate(shape))
            parts.append((new, axis, np.asarray(indices)[mine[axis]] if axis in mine else np.asarray(indices)))
        present = np.unique(np.concatenate([index for *_, index in parts]))
        groups: Any = self.grouping.of((sum(math.prod(shape) for shape, _, _ in self.spans),))
        number = np.zeros(len(groups.sizes), dtype=np.int64)
        number[present] = np.arange(len(present))
        spans = tuple((shape, axis, tuple(number[index].tolist())) for shape, axis, index in parts)
        return self._with(spans=spans, counts=tuple(groups.counts[present].tolist()))

    def _heavier(self, shrunk: set[float], **grouping: Any) -> Grouped:
        """Groups weighted as if they still had ``shrunk`` times as many entries."""
        if not self.size_scaled or shrunk == {1.0}:
            return self._with(**grouping)
        if len(shrunk) > 1:
            raise ValueError("groups that lost different shares of their entries have no common weight")
        return self._with_group_factor(math.sqrt(shrunk.pop()))._with(**grouping)

    def _with_group_factor(self, factor: float) -> Grouped:
        """The weight of every group multiplied."""
        instance: Any = self
        heavier: Grouped = replace(instance, weight=self.weight * factor)
        return heavier

    def _with(self, **grouping: Any) -> Grouped:
        instance: Any = self  # a dataclass, as every regularizer that can be made
        changed: Grouped = replace(instance, **grouping)
        return changed

    def _scaled(self, xp: ModuleType, groups: Groups, weight: float, like: Array) -> Array | float:
        """Weight of each group: ``weight`` times the root of the group's size, if sizes count."""
        return weight * groups.root_sizes(xp, like) if self.size_scaled else weight

    def group_weights(self, w: Array) -> Array | float:
        """weight_g of each group: ``weight``, times the root of the group's size if ``size_scaled``.

        Parameters
        ----------
        w : array
            Only its shape and library count.

        Returns
        -------
        float or array
            A scalar, or a vector where labels are given.
        """
        return self._scaled(namespace(w=w), self.groups(w), self.weight, w)

    def group_norms(self, w: Array) -> Array:
        """||w_g|| of every group.

        Parameters
        ----------
        w : array
            Of any real floating dtype.

        Returns
        -------
        float64 array
            Reduced axes kept with length one; a vector where labels are given.
        """
        xp = namespace(w=w)
        return norms_of(xp, self.groups(w), to_float64(xp, w))

    def group_max(self, diag: Array) -> Array:
        """Largest entry of ``diag`` in each group, in the shape `prox` takes one step per group."""
        return self.groups(diag).max(namespace(diag=diag), diag)

    def spread(self, per_group: Array, like: Array) -> Array:
        """One number per group laid out so that it multiplies the entries of ``like``."""
        return self.groups(like).spread(namespace(like=like), per_group)

    def group_support(self, w: Array) -> GroupSupport:
        """Which groups of ``w`` are nonzero, from exact zeros (with the axes of the view, if there is one)."""
        # Asked after every step of a run, of arrays of one shape: short cuts count.
        if type(w) is not np.ndarray or w.dtype.kind != "f":
            namespace(w=w)
        pattern, sizes = self.grouping.nonzero(to_host(w))
        return GroupSupport(pattern.view(np.int8), sizes)

    def _radial_hessian(self, w: Array, slope: Array | float, bend: Array | float) -> Callable[[Array], Array]:
        """Hessian of sum_g phi_g(||w_g||) along the manifold, phi' = slope and phi'' = bend in each group.

        With u = w_g / ||w_g|| it maps d to slope/||w_g|| (d - u <u, d>) + bend u <u, d>.
        """
        xp = namespace(w=w)
        groups, norms, w = self.groups(w), self.group_norms(w), to_float64(xp, w)
        zero = norms == 0
        safe = xp.where(zero, xp.ones_like(norms), norms)
        across = groups.spread(xp, xp.where(zero, xp.zeros_like(norms), slope / safe))
        along = groups.spread(xp, xp.where(zero, xp.zeros_like(norms), bend + 0.0 * norms)) - across
        unit = w / groups.spread(xp, safe)
        return lambda d: across * d + along * (unit * groups.spread(xp, groups.total(xp, unit * d)))

    def _tangent_of_groups(self, w: Array, direction: Array) -> Array:
        """``direction`` in the nonzero groups of ``w``."""
        xp = namespace(w=w, direction=direction)
        same_shape(w=w, direction=direction)
        zero = self.groups(w).spread(xp, self.group_norms(w) == 0)
        return xp.where(zero, xp.zeros_like(direction), direction)

    def _cvxpy_norms(self, x: Any, shape: tuple[int, ...]) -> Any:
        """sum_g sqrt(n_g) ||x_g|| of a flat CVXPY variable, without the roots if sizes do not count."""
        with needs("experiments"):
            import cvxpy as cp

        groups = self.grouping.indices(shape)
        roots = [np.sqrt(len(group)) if self.size_scaled else 1.0 for group in groups]
        return sum(root * cp.norm2(x[group]) for root, group in zip(roots, groups, strict=True))


def norms_of(xp: ModuleType, groups: Groups, w: Array) -> Array:
    """||w_g|| of every group of a float64 array, whatever the size of its squares."""
    scale = groups.max(xp, xp.abs(w))  # squares of denormal entries must not vanish
    scale = xp.where((scale > 0) & xp.isfinite(scale), scale, xp.ones_like(scale))
    return scale * xp.sqrt(groups.total(xp, (w / groups.spread(xp, scale)) ** 2))


def per_entry(xp: ModuleType, groups: Groups, step: Array | float) -> Array | float:
    """A ``step`` per group laid out over the entries; a scalar as it is."""
    return groups.spread(xp, step) if getattr(step, "ndim", 0) else step


def shrink(xp: ModuleType, groups: Groups, z: Array, norms: Array, threshold: Array | float) -> Array:
    """z_g max(1 - threshold / ||z_g||, 0)."""
    ratio = (norms - threshold) / xp.where(norms > 0, norms, xp.ones_like(norms))
    ratio = xp.where(norms <= threshold, xp.zeros_like(ratio), ratio)
    return xp.astype(to_float64(xp, z) * groups.spread(xp, ratio), z.dtype)


def ball_residual(xp: ModuleType, groups: Groups, w: Array, g: Array, norms: Array, radius: Array | float) -> Array:
    """g_g + radius w_g / ||w_g||, or g_g shortened by at most radius where w_g = 0."""
    sizes = norms_of(xp, groups, g)
    zero = norms == 0
    one = xp.ones_like(norms)
    kept = xp.where(sizes <= radius, xp.zeros_like(sizes), (sizes - radius) / xp.where(sizes > 0, sizes, one))
    unit = to_float64(xp, w) / groups.spread(xp, xp.where(zero, one, norms))
    return xp.where(groups.spread(xp, zero), g * groups.spread(xp, kept), g + groups.spread(xp, radius * one) * unit)


def Reshaped(grouped: Grouped | dict[str, Any], shape: tuple[int, ...]) -> Regularizer:
    """``grouped`` with the groups of arrays seen in ``shape``: the former spelling of its ``view``.

    Parameters
    ----------
    grouped : GroupLasso, SparseGroupLasso or GroupMCP
        Its ``dims`` name axes of ``shape``.
    shape : tuple of int
        As many entries as the array has.

    Returns
    -------
    Regularizer

    Raises
    ------
    TypeError
        If ``grouped`` has no groups along axes.
    """
    psi = Regularizer.from_dict(grouped) if isinstance(grouped, dict) else grouped
    if not isinstance(psi, Grouped) or psi.labels is not None:
        raise TypeError(f"grouped must have groups along axes, got {psi!r}")
    return psi._with(view=integers("shape", shape))


FORMER["Reshaped"] = Reshaped
