"""The structure after every step of a run, a few bits per piece and no copy of a weight."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ramda_theory.structure import GroupSupport, Pattern, Rank, SignPattern, Structure

BLOCK = 1024
"""Steps held as one byte per piece before they are packed to bits."""
BLOCK_BYTES = 2**24
"""Fewer steps are held of patterns so large that they would take more than this."""

KINDS: dict[str, type[Pattern]] = {"SignPattern": SignPattern, "GroupSupport": GroupSupport}


class StructureTrace:
    """A list of structures of one kind and shape, packed.

    Patterns of zeros and ones take one bit per piece, patterns with signs or branches (-4 .. 3) three bits, ranks two
    bytes.  Entry k is the structure after step k + 1.
    """

    def __init__(self) -> None:
        self._kind: Any = None  # a structure of the kind and shape of all
        self._packed: list[tuple[np.ndarray, int]] = []  # (bits, planes) of a full block of steps each
        self._block: Any = np.zeros((1, 0))  # the last steps, a row each
        self._filled = 0

    def __len__(self) -> int:
        return len(self._packed) * len(self._block) + self._filled

    def append(self, structure: Structure) -> None:
        """Add the structure of the next step.

        Parameters
        ----------
        structure : Structure
            Of the kind and shape of those before it.

        Raises
        ------
        TypeError
            If it is not of the kind and shape of those before it.
        """
        if self._kind is None:
            self._start(structure)
        if isinstance(structure, Rank):
            self._kind._peer(structure)
            row: Any = structure.rank
        else:
            if structure.__class__ is not self._kind.__class__ or structure.pattern.shape != self._kind.pattern.shape:
                self._kind.distance(structure)  # refuses another kind or shape
            row = structure.pattern.ravel()
        self._block[self._filled] = row
        self._filled += 1
        if self._filled == len(self._block):
            self._packed.append(self._pack(self._block))
            self._filled = 0

    def _start(self, kind: Structure) -> None:
        """Hold structures of this kind and shape from now on."""
        self._kind = kind
        pieces = 1 if isinstance(kind, Rank) else kind.pattern.size
        rows = max(1, min(BLOCK, BLOCK_BYTES // max(pieces, 1)))
        self._block = np.zeros((rows, pieces), dtype=np.int16 if isinstance(kind, Rank) else np.int8)

    def _pack(self, block: np.ndarray) -> tuple[np.ndarray, int]:
        if isinstance(self._kind, Rank):
            return block.copy(), 0
        lowest, highest = block.min(initial=0), block.max(initial=0)
        if lowest < -4 or highest > 3:
            raise ValueError(f"patterns must hold numbers from -4 to 3, got {lowest} to {highest}")
        planes = 1 if lowest >= 0 and highest <= 1 else 3
        return np.stack([np.packbits((block >> plane) & 1, axis=1) for plane in range(planes)]), planes

    def _unpack(self, bits: np.ndarray, planes: int) -> np.ndarray:
        if planes == 0:
            return bits
        pieces = self._block.shape[1]
        values = sum(np.unpackbits(bits[p], axis=1, count=pieces).astype(np.int8) << p for p in range(planes))
        return np.where(values > 3, values - 8, values).astype(np.int8)

    def blocks(self) -> Iterator[np.ndarray]:
        """The patterns (or ranks) as integer arrays, some steps each, one row a step.

        Yields
        ------
        array of int
            Shape (steps, pieces), or (steps, 1) for ranks.
        """
        for bits, planes in self._packed:
            yield self._unpack(bits, planes)
        if self._filled:
            yield self._block[: self._filled]

    def __getitem__(self, index: int) -> Structure:
        if not -len(self) <= index < len(self):
            raise IndexError(f"step index must be below {len(self)} in size, got {index}")
        block, row = divmod(index % len(self), len(self._block))
        rows = self._block if block == len(self._packed) else self._unpack(*self._packed[block])
        return self._structure(rows[row])

    def _structure(self, row: np.ndarray) -> Structure:
        kind = self._kind
        if isinstance(kind, Rank):
            return Rank(int(row[0]), kind.rows, kind.columns)
        pattern: Pattern = type(kind)(row.reshape(kind.pattern.shape).copy(), kind.sizes)
        return pattern

    def distances(self, reference: Structure) -> np.ndarray:
        """`Structure.distance` to ``reference`` after every step.

        Parameters
        ----------
        reference : Structure
            Of the kind and shape of the trace.

        Returns
        -------
        array of int
            An entry per step; pieces that differ, or the difference of the ranks.

        Raises
        ------
        TypeError
            If ``reference`` is of another kind or shape.
        """
        if self._kind is None:
            return np.zeros(0, dtype=int)
        self._kind.distance(reference)  # refuses another kind or shape
        if isinstance(reference, Rank):
            return np.concatenate([np.abs(block[:, 0].astype(int) - reference.rank) for block in self.blocks()])
        target = reference.pattern.ravel()
        return np.concatenate([np.count_nonzero(block != target, axis=1) for block in self.blocks()])

    def counts(self) -> np.ndarray:
        """Nonzero pieces (or the rank) after every step.

        Returns
        -------
        array of int
            An entry per step.
        """
        if isinstance(self._kind, Rank):
            return np.concatenate([block[:, 0].astype(int) for block in self.blocks()])
        return np.concatenate([np.count_nonzero(block, axis=1) for block in self.blocks()] or [np.zeros(0, dtype=int)])

    def changes(self) -> np.ndarray:
        """Pieces (or ranks) that differ from the step before; 0 for the first step.

        Returns
        -------
        array of int
            An entry per step.
        """
        previous, counts = None, [np.zeros(0, dtype=int)]
        for block in self.blocks():
            shifted = np.concatenate([block[:1] if previous is None else previous, block[:-1]])
            rank = isinstance(self._kind, Rank)
            counts.append((np.abs(block - shifted) if rank else block != shifted).sum(axis=1, dtype=int))
            previous = block[-1:].copy()
        return np.concatenate(counts)

    # -- plain data -------------------------------------------------------------------------------------------------

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The trace as named arrays, from which `from_arrays` rebuilds it.

        Returns
        -------
        dict of str to array
            Arrays of numbers and strings, as ``numpy.savez`` takes them; empty for an empty trace.
        """
        if self._kind is None:
            return {}
        kind = self._kind
        if isinstance(kind, Rank):
            head = {"kind": np.asarray("Rank"), "shape": np.asarray([kind.rows, kind.columns])}
        else:
            head = {
                "kind": np.asarray(type(kind).__name__),
                "shape": np.asarray(kind.pattern.shape, dtype=np.int64),
                "sizes": np.asarray(kind.sizes),
            }
        blocks = {f"block{i}": bits for i, (bits, _) in enumerate(self._packed)}
        return {**head, **blocks, "tail": self._block[: self._filled].copy()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> StructureTrace:
        """Rebuild a trace from `to_arrays`'s data.

        Parameters
        ----------
        arrays : dict of str to array
            What `to_arrays` gave.

        Returns
        -------
        StructureTrace
        """
        trace = cls()
        if not arrays:
            return trace
        name, shape, tail = str(arrays["kind"]), arrays["shape"], arrays["tail"]
        if name == "Rank":
            trace._start(Rank(0, int(shape[0]), int(shape[1])))
        else:
            sizes = arrays["sizes"]
            pattern = np.zeros(tuple(shape), dtype=np.int8)
            trace._start(KINDS[name](pattern, int(sizes) if sizes.ndim == 0 else sizes))
        trace._filled = len(tail)
        trace._block[: len(tail)] = tail
        for i in range(sum(key.startswith("block") for key in arrays)):
            bits = arrays[f"block{i}"]
            trace._packed.append((bits, 0 if name == "Rank" else len(bits)))
        return trace
