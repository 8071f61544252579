"""How entries form groups: slices along axes, of the array itself or of a view of it, labels of a vector, or slices of
several arrays at once.

`Grouping` is what a regularizer carries.  Its `Groups` for one shape answer four questions, so that a group norm is
written once: the total over each group, its maximum, a group quantity laid out over the entries, and the group sizes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import is_torch_array

from ramda_theory.arrays import Array, integers, segment_max, segment_sum, total

Span: TypeAlias = tuple[tuple[int, ...], int, tuple[int, ...]]
"""Shape of an array, one of its axes, and the group of every slice along it."""


@dataclass(frozen=True)
class Grouping:
    """Which entries of an array make up a group.

    Parameters
    ----------
    dims : tuple of int
        Axes a group extends over (negative ones count from the end).
    labels : tuple of int, optional
        Instead: one integer per entry of a vector; equal labels form a group.
    view : tuple of int, optional
        Shape, of as many entries in C order, in which ``dims`` name axes: (heads, features, columns) for groups that
        are whole attention heads.  None: the array's own shape.
    spans : tuple of (shape, axis, indices), optional
        Instead: groups that span several arrays.  The array is a vector that holds the entries of all of them, one
        after the other, each in C order; the slice at position i along ``axis`` of one belongs to group
        ``indices[i]``.  Groups are numbered from 0 on, without gaps.
    counts : tuple of int, optional
        With ``spans``: the sizes by which groups are weighted, where these are not their own any more, because zeros
        have been cut out of them.

    Raises
    ------
    TypeError, ValueError
        If these are no integers, if labels meet dims or a view, or if the view lacks an axis of ``dims``.
    """

    dims: tuple[int, ...] = (0,)
    labels: tuple[int, ...] | None = None
    view: tuple[int, ...] | None = None
    spans: tuple[Span, ...] | None = None
    counts: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dims", integers("dims", self.dims))
        if self.spans is not None:
            if self.dims != (0,) or self.labels is not None or self.view is not None:
                raise ValueError("spans exclude dims, labels and view")
            object.__setattr__(self, "spans", tuple(_checked_span(span) for span in self.spans))
            if self.counts is not None:
                object.__setattr__(self, "counts", integers("counts", self.counts))
            own = self._span_groups.sizes  # refuses numbers with gaps
            if self.counts is not None and (len(self.counts) != len(own) or min(self.counts) < 1):
                raise ValueError(f"counts must be a positive number for each of {len(own)} groups, got {self.counts}")
        elif self.counts is not None:
            raise ValueError("counts go with spans")
        for name in ("labels", "view"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, integers(name, value))
        if self.labels is not None and self.dims != (0,):
            raise ValueError(f"dims and labels exclude each other, got dims {self.dims} and labels")
        if self.labels is not None and self.view is not None:
            raise ValueError(f"labels and view exclude each other, got labels and view {self.view}")
        if self.view is not None:
            AxisGroups(self.dims, self.view)  # refuses axes that the view lacks

    def of(self, shape: tuple[int, ...]) -> Groups:
        """The groups of arrays of this shape; ValueError if the grouping does not fit it."""
        if self.spans is not None:
            if tuple(shape) != (self._span_groups.length,):
                raise ValueError(
                    f"spans give groups of a vector of {self._span_groups.length} entries, got {tuple(shape)}"
                )
            return self._span_groups
        if self.labels is not None:
            if tuple(shape) != (len(self.labels),):
                raise ValueError(f"labels give groups of a vector of {len(self.labels)} entries, got {tuple(shape)}")
            return self._label_groups
        return AxisGroups(self.dims, shape) if self.view is None else ViewGroups(self.dims, self.view, shape)

    @cached_property
    def _label_groups(self) -> LabelGroups:
        return LabelGroups(np.asarray(self.labels, dtype=np.int64))

    @cached_property
    def _span_groups(self) -> SpanGroups:
        assert self.spans is not None
        return SpanGroups(self.spans, self.counts)

    def nonzero(self, w: np.ndarray) -> tuple[np.ndarray, int | np.ndarray]:
        """Which groups of ``w`` hold anything but zeros, and the groups' sizes."""
        if self.spans is not None:
            spans = self.of(w.shape)
            return spans.total(np, (w != 0).astype(np.float64)) > 0, spans.sizes
        if self.labels is not None:
            groups = self._label_groups
            self.of(w.shape)
            return np.bincount(groups.index, weights=w != 0, minlength=len(groups.sizes)) > 0, groups.sizes
        if self.view is not None:
            self.of(w.shape)
            w = w.reshape(self.view)
        by_axes = _axis_groups(self.dims, w.shape)
        return np.logical_or.reduce(w, axis=by_axes.axes, keepdims=True), by_axes.sizes

    def axes(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Axes of an array of this shape that a group extends over; None if its groups are not slices of it."""
        by_axes = self.labels is None and self.view is None and self.spans is None
        return AxisGroups(self.dims, shape).axes if by_axes else None

    def describe(self, shape: tuple[int, ...]) -> str:
        """How many groups of what size."""
        entries, sizes = math.prod(shape), self.of(shape).sizes
        if self.spans is not None:
            return f"{np.size(sizes)} groups of {np.min(sizes)} to {np.max(sizes)} in {len(self.spans)} tensors"
        if self.labels is not None:
            return f"{np.size(sizes)} groups of {np.min(sizes, initial=entries)} to {np.max(sizes, initial=0)}"
        return f"{entries // int(sizes) if sizes else 0} groups of {sizes}"

    def indices(self, shape: tuple[int, ...]) -> list[np.ndarray]:
        """Positions, in the flattened array, of the entries of every group."""
        if self.spans is not None:
            labels = self.of(shape).spread(np, np.arange(len(self._span_groups.sizes)))
            return [np.flatnonzero(labels == label) for label in range(len(self._span_groups.sizes))]
        if self.labels is not None:
            self.of(shape)
            return [np.flatnonzero(np.asarray(self.labels) == label) for label in sorted(set(self.labels))]
        self.of(shape)
        index = np.arange(math.prod(shape)).reshape(shape if self.view is None else self.view)
        axes = sorted(axis % index.ndim for axis in self.dims)
        last = np.moveaxis(index, axes, range(-len(axes), 0)) if axes else index[..., None]
        kept = last.shape[: last.ndim - max(len(axes), 1)]
        return list(last.reshape(math.prod(kept), -1)) if index.size else []


class AxisGroups:
    """Groups are the slices over the axes ``dims``, as in ``torch.linalg.vector_norm(dim=dims)``.

    Group quantities keep the axes ``dims`` with length one, so that they broadcast against the entries.
    """

    def __init__(self, dims: tuple[int, ...], shape: tuple[int, ...]) -> None:
        rank = len(shape)
        if any(not -rank <= dim < rank for dim in dims):
            raise ValueError(f"dims must name axes of an array with {rank} axes (shape {tuple(shape)}), got {dims}")
        self.axes = tuple(sorted({dim % rank for dim in dims})) if dims else ()
        if len(self.axes) < len(dims):
            raise ValueError(f"dims must name distinct axes, got {dims} for shape {tuple(shape)}")
        self.sizes = math.prod([shape[axis] for axis in self.axes])  # a list: torch.compile reads no generator here

    def total(self, xp: ModuleType, array: Array) -> Array:
        return total(xp, array, self.axes)

    def max(self, xp: ModuleType, array: Array) -> Array:
        if not self.axes or not self.sizes:
            return array if not self.axes else self.total(xp, array)
        return xp.max(array, axis=self.axes, keepdims=True)

    def spread(self, xp: ModuleType, per_group: Array) -> Array:
        return per_group

    def root_sizes(self, xp: ModuleType, like: Array) -> float:
        return math.sqrt(self.sizes or 1)  # a group without entries has norm 0 at any weight


class LabelGroups:
    """Groups are the entries of a vector that carry the same label; group quantities are vectors, in label order.

    Labels are any integers; group k is the k-th smallest label.
    """

    def __init__(self, labels: np.ndarray) -> None:
        _, self.index, self.sizes = np.unique(labels, return_inverse=True, return_counts=True)

    def _index(self, like: Array) -> Array:
        return _as_tensor(self.index, like) if is_torch_array(like) else self.index

    def total(self, xp: ModuleType, array: Array) -> Array:
        return segment_sum(xp, array, self._index(array), len(self.sizes))

    def max(self, xp: ModuleType, array: Array) -> Array:
        return segment_max(xp, array, self._index(array), len(self.sizes))

    def spread(self, xp: ModuleType, per_group: Array) -> Array:
        return xp.take(per_group, self._index(per_group), axis=0)

    def root_sizes(self, xp: ModuleType, like: Array) -> Array:
        roots = np.sqrt(self.sizes)
        return _as_tensor(roots, like) if is_torch_array(like) else roots


class SpanGroups:
    """Groups that span several arrays, of a vector that holds them all; group quantities are vectors.

    Totals are taken array by array, over all axes but one, and then added up.
    """

    def __init__(self, spans: tuple[Span, ...], counts: tuple[int, ...] | None = None) -> None:
        self.parts: list[tuple[slice, tuple[int, ...], int, np.ndarray]] = []
        self.length = 0
        for shape, axis, indices in spans:
            stop = self.length + math.prod(shape)
            self.parts.append((slice(self.length, stop), shape, axis, np.asarray(indices, dtype=np.int64)))
            self.length = stop
        count = 1 + max((int(index.max(initial=-1)) for *_, index in self.parts), default=-1)
        sizes = np.zeros(count, dtype=np.int64)
        for _, shape, axis, index in self.parts:
            np.add.at(sizes, index, math.prod(shape) // max(shape[axis], 1))
        if not count or not sizes.all():
            raise ValueError("spans must number their groups from 0 on, without gaps")
        self.sizes = sizes
        self.counts = sizes if counts is None else np.asarray(counts)

    def total(self, xp: ModuleType, array: Array) -> Array:
        return self._gather(xp, array, lambda part, axes: total(xp, part, axes), segment_sum, lambda a, b: a + b)

    def max(self, xp: ModuleType, array: Array) -> Array:
        def largest(part: Array, axes: tuple[int, ...]) -> Array:
            return xp.max(part, axis=axes, keepdims=True) if axes else part

        return self._gather(xp, array, largest, segment_max, xp.maximum)

    def _gather(self, xp: ModuleType, array: Array, reduce: Any, segments: Any, join: Any) -> Array:
        found = None
        for place, shape, axis, index in self.parts:
            axes = tuple(other for other in range(len(shape)) if other != axis)
            part = reduce(xp.reshape(array[place], shape), axes)
            own = _as_tensor(index, array) if is_torch_array(array) else index
            mine = segments(xp, xp.reshape(part, (-1,)), own, len(self.sizes))
            found = mine if found is None else join(found, mine)
        return found

    def spread(self, xp: ModuleType, per_group: Array) -> Array:
        parts = []
        for _, shape, axis, index in self.parts:
            own = _as_tensor(index, per_group) if is_torch_array(per_group) else index
            along = xp.reshape(
                xp.take(per_group, own, axis=0), tuple(-1 if i == axis else 1 for i in range(len(shape)))
            )
            parts.append(xp.reshape(xp.broadcast_to(along, shape), (-1,)))
        return xp.concat(parts)

    def root_sizes(self, xp: ModuleType, like: Array) -> Array:
        roots = np.sqrt(self.counts)
        return _as_tensor(roots, like) if is_torch_array(like) else roots


def _checked_span(span: Any) -> Span:
    """One array of a spanning group, as integers that fit together."""
    try:
        shape, axis, indices = span
    except (TypeError, ValueError) as error:
        raise ValueError(f"spans must hold (shape, axis, indices), got {span!r}") from error
    shape, (axis,), indices = integers("shape", shape), integers("axis", axis), integers("indices", indices)
    if not 0 <= axis < len(shape) or len(indices) != shape[axis] or any(index < 0 for index in indices):
        raise ValueError(f"indices must name a group for each slice along axis {axis} of shape {shape}")
    return shape, axis, indices


class ViewGroups:
    """`AxisGroups` of the array seen in another shape; group quantities have the axes of that shape."""

    def __init__(self, dims: tuple[int, ...], view: tuple[int, ...], shape: tuple[int, ...]) -> None:
        if math.prod(shape) != math.prod(view):
            raise ValueError(f"an array of shape {tuple(shape)} cannot be seen as {view}")
        self._seen, self._view, self._shape = AxisGroups(dims, view), view, tuple(shape)
        self.sizes = self._seen.sizes

    def total(self, xp: ModuleType, array: Array) -> Array:
        return self._seen.total(xp, xp.reshape(array, self._view))

    def max(self, xp: ModuleType, array: Array) -> Array:
        return self._seen.max(xp, xp.reshape(array, self._view))

    def spread(self, xp: ModuleType, per_group: Array) -> Array:
        return xp.reshape(xp.broadcast_to(per_group, self._view), self._shape)

    def root_sizes(self, xp: ModuleType, like: Array) -> float:
        return self._seen.root_sizes(xp, like)


def _as_tensor(array: np.ndarray, like: Array) -> Array:
    import torch

    return torch.as_tensor(array, device=like.device)


Groups = AxisGroups | LabelGroups | SpanGroups | ViewGroups
_axis_groups = lru_cache(maxsize=64)(AxisGroups)  # `nonzero` is asked after every step of a run
