"""Group norms of an array seen in another shape: groups that are blocks of slices, such as whole attention heads."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from ramda_theory.arrays import Array, namespace
from ramda_theory.regularizers.base import Regularizer
from ramda_theory.regularizers.grouped import GroupLasso, SparseGroupLasso, integers
from ramda_theory.regularizers.grouping import AxisGroups
from ramda_theory.regularizers.kernel import KernelSpec
from ramda_theory.structure import GroupSupport, Structure


@dataclass(frozen=True)
class Reshaped(Regularizer):
    """``grouped`` of the array reshaped (in C order) to ``shape``.

    With rows that are heads times features, ``Reshaped(GroupLasso(weight, dims=(1, 2)), (heads, features, columns))``
    makes one group of each head.

    Parameters
    ----------
    grouped : GroupLasso or SparseGroupLasso
        Its ``dims`` name axes of ``shape``; its weight is the weight.
    shape : tuple of int
        As many entries as the array has.
    """

    weight: float = field(init=False)
    grouped: GroupLasso | SparseGroupLasso
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        grouped: Any = Regularizer.from_dict(self.grouped) if isinstance(self.grouped, dict) else self.grouped
        if not isinstance(grouped, (GroupLasso, SparseGroupLasso)) or getattr(grouped, "labels", None) is not None:
            raise TypeError(f"grouped must be GroupLasso or SparseGroupLasso without labels, got {grouped!r}")
        object.__setattr__(self, "grouped", grouped)
        object.__setattr__(self, "shape", integers("shape", self.shape))
        AxisGroups(grouped.dims, self.shape)  # refuses axes that the shape lacks
        object.__setattr__(self, "weight", grouped.weight)

    def seen(self, array: Array) -> Array:
        """``array`` in the other shape."""
        if math.prod(array.shape) != math.prod(self.shape):
            raise ValueError(f"an array of shape {tuple(array.shape)} cannot be seen as {self.shape}")
        return namespace(array=array).reshape(array, self.shape)

    def _back(self, seen: Array, like: Array) -> Array:
        return namespace(seen=seen).reshape(seen, tuple(like.shape))

    def value(self, w: Array) -> Array:
        return self.grouped.value(self.seen(w))

    def prox(self, z: Array, step: Array | float = 1.0) -> Array:
        return self._back(self.grouped.prox(self.seen(z), step), z)

    def metric_prox(self, linear: Array, diag: Array, scale: Array | float = 1.0) -> Array:
        """As that of ``grouped``, exact."""
        return self._back(self.grouped.metric_prox(self.seen(linear), self.seen(diag), scale), linear)

    def kernel(self) -> KernelSpec:
        spec = self.grouped.kernel()
        assert spec is not None  # only labels have none
        return replace(spec, view=self.shape)

    def group_norms(self, w: Array) -> Array:
        """As in `GroupLasso`, with the axes of ``shape``."""
        return self.grouped.group_norms(self.seen(w))

    def group_max(self, diag: Array) -> Array:
        return self.grouped.group_max(self.seen(diag))

    def spread(self, per_group: Array, like: Array) -> Array:
        xp = namespace(like=like)
        return self._back(xp.broadcast_to(self.grouped.spread(per_group, self.seen(like)), self.shape), like)

    def subdifferential_residual(self, w: Array, g: Array, scale: Array | float = 1.0) -> Array:
        return self._back(self.grouped.subdifferential_residual(self.seen(w), self.seen(g), scale), g)

    def nondegeneracy_margin(self, w: Array, g: Array) -> Array:
        return self.grouped.nondegeneracy_margin(self.seen(w), self.seen(g))

    def critical_weight(self, g: Array) -> Array:
        return self.grouped.critical_weight(self.seen(g))

    def group_support(self, w: Array) -> GroupSupport:
        """Which groups of ``w`` are nonzero, from exact zeros, with the axes of ``shape``."""
        return self.grouped.group_support(self.seen(w))

    def structure(self, w: Array) -> Structure:
        """Structure of ``grouped``, with the axes of ``shape``."""
        return self.grouped.structure(self.seen(w))

    def to_dict(self) -> dict[str, Any]:
        return {"name": "Reshaped", "grouped": self.grouped.to_dict(), "shape": list(self.shape)}
