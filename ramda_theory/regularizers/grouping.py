"""How entries form groups: the slices along axes, or the labels of a vector.

Both kinds answer the same four questions, so that a group norm is written once: the total over each group, its
maximum, a group quantity laid out over the entries, and the group sizes.
"""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
from array_api_compat import is_torch_array

from ramda_theory.arrays import Array, segment_max, segment_sum, total


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

    def __init__(self, labels: np.ndarray, shape: tuple[int, ...]) -> None:
        if tuple(shape) != labels.shape:
            raise ValueError(f"labels give groups of a vector of {labels.size} entries, got shape {tuple(shape)}")
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


def _as_tensor(array: np.ndarray, like: Array) -> Array:
    import torch

    return torch.as_tensor(array, device=like.device)


Groups = AxisGroups | LabelGroups
