"""How tensors are cut into the tiles that programs step: rows of integers, one per program."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ramda_theory.kernels.cpu.layout import Sizes

ENTRIES = 4096
"""Entries of a flat tile."""


@dataclass(frozen=True)
class Shape:
    """The shape of a tile of groups.

    Parameters
    ----------
    rows, columns : int
        Powers of two: along the groups, and across them.
    warps : int
    """

    rows: int
    columns: int
    warps: int


TALL = 128 * 64
"""Rows from which on a tile is larger, so that fewer members meet."""


def tile_shape(sizes: Sizes) -> Shape:
    """The tile of a tensor whose groups (i, k) are [i, :, k, :] in the shape ``sizes``."""
    _, rows, _, size = sizes
    if rows == 1:  # along memory
        return Shape(128, 16, 8) if size <= 128 else Shape(1024, 2, 8)
    if size > 1:  # some columns each: wide enough for several groups of 9
        return Shape(64, 64, 8)
    return Shape(256, 32, 16) if rows >= TALL else Shape(128, 32, 8)


def split_shape(shape: Shape) -> Shape:
    """The tile for two launches: 8 entries for a thread at most, since solving from memory takes registers too."""
    rows = min(shape.rows, 8 * 32 * shape.warps // shape.columns)
    return Shape(rows, shape.columns, shape.warps)


def unaligned_shape(shape: Shape) -> Shape:
    """The tile of a team whose entries are loaded one by one, which takes twice the registers for their addresses."""
    return Shape(shape.rows // 2, shape.columns, shape.warps)


def flat_tiles(tensor: int, count: int) -> np.ndarray:
    """Rows (tensor, first entry, entries) that cover ``count`` entries."""
    first = np.arange(0, count, ENTRIES, dtype=np.int64)
    return np.stack([np.full_like(first, tensor), first, np.minimum(count - first, ENTRIES)], axis=1)


def groups_at_once(size: int, columns: int) -> int:
    """Groups of ``size`` columns in a block; their columns are a multiple of 4 where that is possible."""
    fit = max(columns // size, 1)
    step = 4 // math.gcd(size, 4)
    return fit // step * step if fit >= step else fit


def members(sizes: Sizes, shape: Shape) -> int:
    """Tiles that a group is cut into."""
    _, rows, _, size = sizes
    if rows == 1:
        return -(-size // shape.rows)
    return -(-rows // shape.rows) * -(-size // shape.columns)


def even(sizes: Sizes, shape: Shape) -> bool:
    """Whether rows of memory, and what tiles take of them, are multiples of 4 entries."""
    _, rows, kept, size = sizes
    if rows == 1:
        return size % 4 == 0
    return kept * size % 4 == 0 and (size % 4 == 0 or groups_at_once(size, shape.columns) * size % 4 == 0)


def group_tiles(
    tensor: int, sizes: Sizes, shape: Shape, first_block: int, scratch: int, meets: bool = False
) -> tuple[np.ndarray, int, int]:
    """The tiles of a tensor, block by block, as the columns of the table in `ramda_theory.kernels.triton.groups`.

    Parameters
    ----------
    tensor : int
    sizes : Sizes
    shape : Shape
    first_block, scratch : int
        Number of the first block, and where its scratch begins.
    meets : bool
        Whether also a single member leaves its sums there.

    Returns
    -------
    tiles : int64 array, (tiles, 11)
    next_block, scratch : int
        For the next tensor.
    """
    outer, rows, kept, size = sizes
    team = members(sizes, shape)
    if rows == 1:  # a group is a row of memory: here a column
        groups, at_once, row_tiles, chunks, stride, columns_each = outer * kept, shape.columns, team, 1, size, 1
        outer, rows, along, across = 1, size, 1, size
    else:
        groups, at_once, stride, columns_each = kept, groups_at_once(size, shape.columns), kept * size, size
        chunks = -(-size // shape.columns)
        row_tiles, along, across = team // chunks, stride, 1
    grid = np.meshgrid(
        np.arange(outer),
        np.arange(0, groups, at_once),
        np.arange(0, row_tiles * shape.rows, shape.rows),
        np.arange(0, chunks * shape.columns, shape.columns),
        indexing="ij",
    )
    i, group, row, column = (axis.reshape(-1).astype(np.int64) for axis in grid)
    width = np.minimum(at_once, groups - group) * columns_each
    block = np.arange(len(i), dtype=np.int64) // team
    room = 2 * 4 * team * shape.columns if team > 1 or meets else 0
    tiles = np.stack(
        [
            np.full_like(i, tensor),
            i * rows * stride + group * columns_each * across + row * along + column,
            np.minimum(rows - row, shape.rows),
            np.minimum(width - column, shape.columns),
            i * groups + group,
            np.arange(len(i), dtype=np.int64) % team,
            np.full_like(i, team),
            first_block + block,
            scratch + block * room,
            np.full_like(i, stride),
            np.full_like(i, columns_each),
        ],
        axis=1,
    )
    blocks = len(i) // team
    return tiles, first_block + blocks, scratch + blocks * room
