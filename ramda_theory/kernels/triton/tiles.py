"""What the programs of entries and of groups share: the prologue of a tile, and what is written of it."""

from __future__ import annotations

import triton
import triton.language as tl

from ramda_theory.kernels.triton import numbers as table
from ramda_theory.kernels.triton.arithmetic import cube_root, mix, narrow, pointer, square_root

ADDRESSES, W, P, X, Y, Z = table.ADDRESSES, table.W, table.P, table.X, table.Y, table.Z
NUMBERS, STOP, FACTOR, C = table.NUMBERS, table.STOP, table.FACTOR, table.C
NOTHING_STAYS, ALL_STAYS = table.NOTHING_STAYS, table.ALL_STAYS


@triton.jit
def where(m, flag):
    """``m`` if ``flag``, else nowhere: through integers, which leave loads as wide as ``m`` lets them be."""
    return m & (tl.where(m, flag.to(tl.int32), 0) != 0)


@triton.jit
def steps(m, row):
    """Which entries ``m`` of a tensor take part in the step: all or none."""
    return where(m, tl.load(row + STOP) != ALL_STAYS)


@triton.jit
def moves(m, row):
    """Where W and the norms of groups change: everywhere in ``m`` or nowhere."""
    return where(m, tl.load(row + STOP) == NOTHING_STAYS)


@triton.jit
def weights(at, first, o, m, DTYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """W; a half-precision parameter that was changed from outside overrules its float32 copy."""
    w = tl.load(pointer(at + W, tl.float32, ALIGNED) + first + o, mask=m, other=0.0)
    if DTYPE != tl.float32:
        p = tl.load(pointer(at + P, DTYPE, ALIGNED) + first + o, mask=m, other=0.0)
        w = tl.where(narrow(w, DTYPE) == p, w, p.to(tl.float32))
    return w


@triton.jit
def update(
    at, gradient, first, o, m, row, PROLOGUE: tl.constexpr, ARRAYS: tl.constexpr, AVERAGES: tl.constexpr,
    DTYPE: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """The prologue of the entries ``first + o`` of a tensor, ``m`` saying which there are: nothing is written.

    Parameters
    ----------
    at, gradient, row : pointers
        To the tensor's row of addresses, the address of its gradient, and its row of numbers.

    Returns
    -------
    w, x, y, base, linear, diag : tiles
        W_{t-1} (for methods that average, whose prologue does not look at it, anything), the first two arrays of state
        anew, and the subproblem.
    """
    g = tl.load(pointer(gradient, DTYPE, ALIGNED) + first + o, mask=m, other=0.0, eviction_policy="evict_first")
    g = g.to(tl.float32) * tl.load(row + FACTOR)
    w = g
    if not AVERAGES:
        w = weights(at, first, o, m, DTYPE, ALIGNED)
    x = tl.load(pointer(at + X, tl.float32, ALIGNED) + first + o, mask=m, other=0.0)
    y, z = x, x
    if ARRAYS > 1:
        y = tl.load(pointer(at + Y, tl.float32, ALIGNED) + first + o, mask=m, other=0.0)
        z = y
    if ARRAYS > 2:
        z = tl.load(pointer(at + Z, tl.float32, ALIGNED) + first + o, mask=m, other=0.0)
    x, y, base, linear, diag = PROLOGUE(g, w, x, y, z, table.prologue_numbers(row), cube_root, square_root)
    return w, x, y, base, linear, diag


@triton.jit
def write_state(at, first, o, m, x, y, CHANGING: tl.constexpr, ALIGNED: tl.constexpr):
    """Write the arrays of state that have changed."""
    tl.store(pointer(at + X, tl.float32, ALIGNED) + first + o, x, mask=m)
    if CHANGING > 1:
        tl.store(pointer(at + Y, tl.float32, ALIGNED) + first + o, y, mask=m)


@triton.jit
def write_weights(
    at, first, o, m, row, w, point, AVERAGES: tl.constexpr, DTYPE: tl.constexpr, ALIGNED: tl.constexpr
):  # fmt: skip
    """Write W = (1 - c) W + c What; ``w`` is used by methods that do not average, whose c is 1."""
    changes = moves(m, row)
    if AVERAGES:
        # Read as late as this, it takes no registers before; and not at all if c = 1.
        c = tl.load(row + C)
        needed = changes
        if DTYPE == tl.float32:
            needed = where(changes, c < 1.0)
        point = mix(weights(at, first, o, needed, DTYPE, ALIGNED), point, c)
    tl.store(pointer(at + W, tl.float32, ALIGNED) + first + o, point, mask=changes)
    if DTYPE != tl.float32:
        tl.store(pointer(at + P, DTYPE, ALIGNED) + first + o, narrow(point, DTYPE), mask=changes)
