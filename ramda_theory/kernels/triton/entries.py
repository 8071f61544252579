"""The program that steps entries one by one: one pass over memory, one launch over all tensors."""

from __future__ import annotations

import triton
import triton.language as tl

from ramda_theory.kernels.triton import numbers as table
from ramda_theory.kernels.triton.solves import entry
from ramda_theory.kernels.triton.tiles import steps, update, write_state, write_weights

ADDRESSES, NUMBERS = table.ADDRESSES, table.NUMBERS


@triton.jit
def step_entries(
    tiles, addresses, gradients, numbers, PROLOGUE: tl.constexpr, ARRAYS: tl.constexpr, CHANGING: tl.constexpr,
    METRIC: tl.constexpr, AVERAGES: tl.constexpr, RULE: tl.constexpr, DTYPE: tl.constexpr, ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Step a tile (tensor, first entry, how many)."""
    tile = tiles + tl.program_id(0) * 3
    tensor, first, size = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2).to(tl.int32)
    if ALIGNED:
        first = tl.multiple_of(first, 16)
        size = tl.multiple_of(size, 4)
    at, row = addresses + tensor * ADDRESSES, numbers + tensor * NUMBERS
    o = tl.arange(0, BLOCK)
    m = steps(o < size, row)
    w, x, y, base, linear, diag = update(
        at, gradients + tensor, first, o, m, row, PROLOGUE, ARRAYS, AVERAGES, DTYPE, ALIGNED
    )
    point = entry(base, linear, diag, table.entry_numbers(row), RULE)
    write_state(at, first, o, m, x, y, CHANGING, ALIGNED)
    write_weights(at, first, o, m, row, w, point, AVERAGES, DTYPE, ALIGNED)
