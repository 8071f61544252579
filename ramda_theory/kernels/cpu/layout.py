"""How the compiled loops see a tensor: four axes, and the pieces of work it is cut into."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

from ramda_theory.kernels.cpu.sizes import BLOCK, LONGEST_GROUP, NARROWEST, WIDEST

Sizes = tuple[int, int, int, int]
"""Lengths of the axes (kept, reduced, kept, reduced) that a tensor has to the loops: group (i, k) is [i, :, k, :]."""


@lru_cache(maxsize=4096)
def axis_sizes(shape: tuple[int, ...], stride: tuple[int, ...], dims: tuple[int, ...]) -> Sizes | None:
    """`Sizes` of a tensor in which the axes ``dims`` are reduced; None where the loops cannot go through it."""
    sizes, position, entries = [1, 1, 1, 1], 3, 1
    reduced = {dim % len(shape) for dim in dims}
    for axis in sorted((a for a in range(len(shape)) if shape[a] != 1), key=lambda a: stride[a]):
        if stride[axis] != entries:
            return None  # gaps, or entries that share memory
        entries *= shape[axis]
        if (axis in reduced) != (position in (1, 3)):
            position -= 1
        if position < 0:
            return None
        sizes[position] *= shape[axis]
    outer, rows, kept, size = sizes
    if not entries or (rows > 1 and rows * max(size, NARROWEST) > LONGEST_GROUP):
        return None
    return outer, rows, kept, size


@lru_cache(maxsize=4096)
def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a contiguous array."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def parts(sizes: Sizes, grouped: bool, enough: int) -> Iterator[tuple[int, int]]:
    """Ranges of groups (of entries, without groups) that are one unit of work; what is together decides the last bits.

    Parameters
    ----------
    sizes : Sizes
    grouped : bool
    enough : int
        Entries that are worth a unit where the loops set no other limit.
    """
    outer, rows, kept, size = sizes
    if not grouped:
        outer, kept, at_once = 1, math.prod(sizes), enough
    elif rows == 1:
        at_once = max(enough // size, 1)
    else:
        # Of a width that vectors divide.
        width = min(max(BLOCK // rows // NARROWEST * NARROWEST, NARROWEST), WIDEST)
        at_once = max(width // size, 1)
    for i in range(outer):
        for first in range(i * kept, (i + 1) * kept, at_once):
            yield first, min(first + at_once, (i + 1) * kept)
