"""The structure of a whole network at one moment, in packed bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ramda_theory.model.layers import read_structure, regularized
from ramda_theory.structure import GroupSupport, Pattern


@dataclass(frozen=True)
class PackedField:
    """Where the structure of one weight lies in a row of bits.

    Parameters
    ----------
    name : str
    shape : tuple of int
        Shape of its pattern, an integer per piece (see `Pattern`).
    planes : int
        Bits per piece: one for zero or not, three for patterns with signs or branches (-4 .. 3), none where the
        structure is a rank.
    start : int
        First byte; every plane begins a new byte.
    """

    name: str
    shape: tuple[int, ...]
    planes: int
    start: int

    @property
    def width(self) -> int:
        """Bytes of a plane."""
        return -(-math.prod(self.shape) // 8)

    @property
    def stop(self) -> int:
        """The byte after the last."""
        return self.start + self.planes * self.width

    def split(self, bits: np.ndarray) -> np.ndarray:
        """The weight's part of one or more rows of bits, with an axis for the planes: (..., planes, bytes)."""
        return bits[..., self.start : self.stop].reshape(*bits.shape[:-1], self.planes, self.width)

    def unpack(self, bits: np.ndarray) -> np.ndarray:
        """The pattern in one row of bits."""
        planes = np.unpackbits(self.split(bits), axis=1, count=math.prod(self.shape)).astype(np.int8)
        values = sum(plane << k for k, plane in enumerate(planes))
        pattern: np.ndarray = np.where(values > 3, values - 8, values).astype(np.int8).reshape(self.shape)
        return pattern


@dataclass(frozen=True)
class Snapshot:
    """Structure of all regularized weights.

    Parameters
    ----------
    fields : tuple of PackedField
    bits : uint8 array
        A row that the fields divide among the weights.
    counts : int64 array, (weights, 8)
        `LayerStructure.counts` of every weight, the rank for nuclear norms only.
    """

    fields: tuple[PackedField, ...]
    bits: np.ndarray
    counts: np.ndarray


def take(groups: Sequence[dict[str, Any]]) -> Snapshot:
    """The structure of every regularized parameter of ``groups`` as it is now."""
    fields: list[PackedField] = []
    rows, counts = [np.zeros(0, dtype=np.uint8)], []
    for name, weight, regularizer in regularized(groups):
        start = fields[-1].stop if fields else 0
        pattern = regularizer.structure(weight)
        counts.append(read_structure(name, weight, regularizer, ranks=not isinstance(pattern, Pattern)).counts)
        if isinstance(pattern, Pattern):
            planes = 1 if isinstance(pattern, GroupSupport) and regularizer.convex else 3
            rows += [np.packbits((pattern.pattern.ravel() >> plane) & 1) for plane in range(planes)]
            fields.append(PackedField(name, pattern.pattern.shape, planes, start))
        else:
            fields.append(PackedField(name, (), 0, start))
    if not fields:
        raise ValueError("nothing is regularized: no parameter group carries a regularizer")
    return Snapshot(tuple(fields), np.concatenate(rows), np.asarray(counts, dtype=np.int64))


def flips(fields: Sequence[PackedField], bits: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Pieces (and ranks) in which each row of ``bits`` and ``ranks`` differs from the row before; 0 for the first.

    Parameters
    ----------
    fields : sequence of PackedField
    bits : uint8 array, (rows, bytes)
    ranks : int array, (rows, weights)
    """
    changed = np.zeros(len(bits), dtype=np.int64)
    changed[1:] = np.abs(np.diff(ranks, axis=0)).sum(axis=1)
    for field in fields:
        planes = field.split(bits[1:] ^ bits[:-1])
        changed[1:] += np.bitwise_count(np.bitwise_or.reduce(planes, axis=1)).sum(axis=1, dtype=np.int64)
    return changed
