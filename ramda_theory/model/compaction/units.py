"""Channels that leave a network together, and tensors labelled with them.

A *unit* is a channel: one row of the layer that writes it, one column of each layer that reads it, one entry of every
norm in between.  Every position along a channel axis carries the number of a unit; operations tie units together
(an addition: those of its operands), and a unit leaves at all of its positions or at none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Ids = np.ndarray


class Units:
    """Numbers of units, which of them are tied together, and why some must stay."""

    def __init__(self) -> None:
        self._parent = np.zeros(0, dtype=np.int64)
        self.pinned: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._parent)

    def new(self, count: int) -> Ids:
        """As many new units."""
        first = len(self._parent)
        fresh = np.arange(first, first + count)
        self._parent = np.concatenate([self._parent, fresh])
        return fresh

    def find(self, ids: Ids) -> Ids:
        """One unit that stands for all that each is tied to."""
        roots: Ids = self._parent[ids]
        while not np.array_equal(further := self._parent[roots], roots):
            roots = further
        return roots

    def tie(self, one: Ids, other: Ids) -> None:
        """Let units leave together, position by position (arrays that broadcast)."""
        pairs = np.stack([self.find(ids).ravel() for ids in np.broadcast_arrays(one, other)])
        for a, b in np.unique(pairs[:, pairs[0] != pairs[1]], axis=1).T:
            first, second = self._root(a), self._root(b)
            self._parent[max(first, second)] = min(first, second)

    def _root(self, unit: int) -> int:
        while self._parent[unit] != unit:
            self._parent[unit] = self._parent[self._parent[unit]]
            unit = self._parent[unit]
        return int(unit)

    def pin(self, ids: Ids, why: str) -> None:
        """Let units stay, whatever is zero."""
        for unit in np.unique(ids):
            self.pinned.setdefault(int(unit), why)


@dataclass(eq=False)
class Value:
    """A tensor of the graph: which unit each position carries, what is constant there, and whether anybody needs it.

    Parameters
    ----------
    shape : tuple of int
    where : str
        The module that computes it.
    ids : int array or None
        Units; broadcasts to ``shape``, with length one along axes that are no channels.  None: no channels.
    const : float64 array or None
        Like ``ids``: the number that every entry at this position has, whatever the input; NaN where it may differ.
    """

    shape: tuple[int, ...]
    where: str
    ids: Ids | None = None
    const: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.ids is not None:
            self.const = np.full(self.ids.shape, np.nan) if self.const is None else self.const
        self.demand = None if self.ids is None else np.zeros(self.ids.shape, dtype=bool)
        self.remarks: list[tuple[np.ndarray, str]] = []

    @property
    def channels(self) -> tuple[int, ...]:
        """The axes along which positions carry different units."""
        return () if self.ids is None else tuple(axis for axis, n in enumerate(self.ids.shape) if n > 1)

    def aligned(self, rank: int) -> tuple[Ids, np.ndarray]:
        """Units and constants of the tensor broadcast to more axes."""
        assert self.ids is not None and self.const is not None
        shape = (1,) * (rank - self.ids.ndim) + self.ids.shape
        return self.ids.reshape(shape), self.const.reshape(shape)

    def remark(self, mask: np.ndarray, why: str) -> None:
        """Why positions of ``mask``, of the shape of the units' array, are needed although they are constant."""
        self.remarks.append((mask, why))

    def reason(self, unit_mask: np.ndarray) -> str:
        """Why one of the positions of ``unit_mask`` is needed."""
        found = next((why for mask, why in self.remarks if bool((mask & unit_mask).any())), "")
        return found or f"{self.where or 'the model'} is read"

    def need(self, mask: Any) -> None:
        """Somebody needs the value where ``mask`` (which broadcasts against the units' array) is true."""
        if self.demand is None:
            return
        mask = np.asarray(mask)
        while mask.ndim > self.demand.ndim:
            mask = np.asarray(mask.any(axis=0))
        mask = mask.reshape((1,) * (self.demand.ndim - mask.ndim) + mask.shape)
        lengths: tuple[int, ...] = self.demand.shape
        longer = tuple(axis for axis, n in enumerate(lengths) if n == 1 and mask.shape[axis] > 1)
        self.demand |= mask.any(axis=longer, keepdims=True) if longer else mask


@dataclass(eq=False)
class Leaf:
    """A parameter or buffer: its values in float64, and the units of those axes that have any.

    Parameters
    ----------
    name : str
        Its name in the model's state_dict.
    data : Tensor
    units : Units
    learned : bool
        Whether it is a parameter: only those have channels where nothing else tells.

    Attributes
    ----------
    contractions : int
        In how many layers it is the weight.
    reads : int
        Its axis of inputs there.
    """

    name: str
    data: Tensor
    units: Units
    learned: bool = True

    def __post_init__(self) -> None:
        self.axes: dict[int, Ids] = {}
        self.contractions = 0
        self.reads = 1

    def axis(self, axis: int) -> Ids:
        """The units along an axis."""
        if axis not in self.axes:
            self.axes[axis] = self.units.new(self.data.shape[axis])
        return self.axes[axis]


@dataclass(eq=False)
class Weight:
    """A parameter or buffer as the graph holds it: with its axes in some order.

    Parameters
    ----------
    leaf : Leaf
    order : tuple of int
        Axis i here is axis ``order[i]`` there.
    """

    leaf: Leaf
    order: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.leaf.data.shape[axis] for axis in self.order)

    @property
    def data(self) -> Tensor:
        return self.leaf.data.permute(self.order)

    def axis(self, axis: int) -> Ids:
        return self.leaf.axis(self.order[axis])

    def permuted(self, order: tuple[int, ...]) -> Weight:
        return Weight(self.leaf, tuple(self.order[axis] for axis in order))

    def pin(self, why: str, *axes: int) -> None:
        """No slice along these axes (all, if none is named) may leave."""
        for axis in axes or range(len(self.order)):
            self.leaf.units.pin(self.axis(axis), why)

    def as_value(self, axis: int | None, where: str) -> Value:
        """The tensor with channels along one axis, all others fixed."""
        for other in range(len(self.order)):
            if other != axis and self.shape[other] > 1:
                self.pin(f"an axis of {self.leaf.name} that is no channel", other)
        if axis is None:
            return Value(self.shape, where)
        rank = len(self.order)
        shape = tuple(n if i == axis else 1 for i, n in enumerate(self.shape))
        data = self.data if self.data.is_floating_point() else self.data.double()
        flat = torch.movedim(data, axis, 0).reshape(self.shape[axis], -1).numpy() if rank else data.numpy()
        same = (flat == flat[:, :1]).all(axis=1) if flat.size else np.zeros(len(flat), dtype=bool)
        const = np.where(same, flat[:, 0] if flat.size else np.nan, np.nan)
        return Value(self.shape, where, self.axis(axis).reshape(shape), const.reshape(shape))
