"""The programs that solve for the norms of groups cut across processes, which leave their moments to be added up.

Norms lie in a *shared table* of some groups of some tensors: PLANES rows of one number for each group.  The processes
hold the same norms there, and work out the next ones from the same sums, so that they need not tell one another.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ramda_theory.kernels.triton import numbers as table
from ramda_theory.kernels.triton.arithmetic import cube_root, floats, square_root
from ramda_theory.kernels.triton.groups import (
    BLOCK,
    MEMBER,
    MEMBERS,
    SCRATCH,
    TENSOR,
    TILE,
    add_up,
    better_norm,
    group_of_column,
    leave_sums,
    prologue_of,
    sums_of,
)
from ramda_theory.kernels.triton.tiles import moves

ADDRESSES, NORMS, NUMBERS = table.ADDRESSES, table.NORMS, table.NUMBERS
LAM, GROWTH = table.LAM, table.GROWTH

RHO, SUMS, OPEN = (tl.constexpr(plane) for plane in (0, 1, 5))
"""Planes of the shared table: the norms; ||b||^2, s_0, s_1, s_2; whether they are not settled."""
PLANES = tl.constexpr(6)


@triton.jit(do_not_specialize=["count"])
def first_norms(shared, owners, kept, numbers, count, METRIC: tl.constexpr, GROUPS: tl.constexpr):
    """Where the groups of a shared table begin: with the norms that are ``kept`` in the state, if there are any."""
    g = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)
    there = g < count
    rho = tl.zeros([GROUPS], tl.float32)
    if METRIC:
        before = tl.load(tl.load(kept + g, mask=there, other=0).to(tl.pointer_type(tl.float32)), mask=there, other=0.0)
        row = numbers + tl.load(owners + g, mask=there, other=0) * NUMBERS
        rho = tl.maximum(before * tl.load(row + GROWTH), 0.0)
    tl.store(shared + RHO * count + g, rho, mask=there)
    tl.store(shared + OPEN * count + g, rho * 0.0 + 1.0, mask=there)
    clear(shared, g, count, there, GROUPS)


@triton.jit
def clear(shared, g, count, there, GROUPS: tl.constexpr):
    """Leave zeros for the sums: a process without entries of a group adds nothing."""
    for k in tl.static_range(4):
        tl.store(shared + (SUMS + k) * count + g, tl.zeros([GROUPS], tl.float32), mask=there)


@triton.jit(do_not_specialize=["count"])
def share_moments(
    tiles, addresses, gradients, numbers, scratch, meetings, count, PROLOGUE: tl.constexpr, ARRAYS: tl.constexpr,
    METRIC: tl.constexpr, AVERAGES: tl.constexpr, RULE: tl.constexpr, DTYPE: tl.constexpr, ALIGNED: tl.constexpr,
    SEVERAL: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Add the moments of a tile to those of its block; the last member leaves their sums in the shared table."""
    tile = tiles + tl.program_id(0) * TILE
    tensor, member, members = tl.load(tile + TENSOR), tl.load(tile + MEMBER), tl.load(tile + MEMBERS).to(tl.int32)
    group, head, there = group_of_column(tile, SEVERAL, BN)
    shared = floats(addresses + tensor * ADDRESSES + NORMS, False) + group
    is_open = tl.load(shared + OPEN * count, mask=there, other=0.0) > 0
    if tl.max(is_open.to(tl.int32), 0) > 0:
        first, o, m, w, x, y, b, d = prologue_of(
            tile, addresses, gradients, numbers, PROLOGUE, ARRAYS, METRIC, AVERAGES, RULE, DTYPE, ALIGNED, BM, BN
        )
        lam = tl.load(numbers + tensor * NUMBERS + LAM)
        rho = tl.load(shared + RHO * count, mask=there, other=0.0)
        room, arrivals = scratch + tl.load(tile + SCRATCH), meetings + tl.load(tile + BLOCK) * 2
        b_sq, s0, s1, s2 = sums_of(b, d, rho, lam, METRIC)
        leave_sums(room, member, members, b_sq, s0, s1, s2, BN)
        tl.debug_barrier()
        if tl.atomic_add(arrivals, 1, sem="acq_rel", scope="gpu") == members - 1:
            tl.debug_barrier()
            tl.store(arrivals, 0)
            b_sq, s0, s1, s2 = add_up(room, members, tile, SEVERAL, METRIC, BN)
            tl.store(shared + SUMS * count, b_sq, mask=head)
            if METRIC:
                tl.store(shared + (SUMS + 1) * count, s0, mask=head)
                tl.store(shared + (SUMS + 2) * count, s1, mask=head)
                tl.store(shared + (SUMS + 3) * count, s2, mask=head)


@triton.jit(do_not_specialize=["count"])
def next_norms(
    shared, owners, kept, numbers, count, PROLOGUE: tl.constexpr, METRIC: tl.constexpr, LAST: tl.constexpr,
    GROUPS: tl.constexpr,
):  # fmt: skip
    """`better_norm` of the groups of a shared table that are not settled; the LAST ones go to the state."""
    g = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)
    there = g < count
    row = numbers + tl.load(owners + g, mask=there, other=0) * NUMBERS
    rho = tl.load(shared + RHO * count + g, mask=there, other=0.0)
    is_open = tl.load(shared + OPEN * count + g, mask=there, other=0.0) > 0
    sums = shared + SUMS * count + g
    b_sq, d = tl.load(sums, mask=there, other=0.0), rho
    s0, s1, s2 = b_sq, b_sq, b_sq
    if METRIC:
        s0 = tl.load(sums + count, mask=there, other=0.0)
        s1 = tl.load(sums + 2 * count, mask=there, other=0.0)
        s2 = tl.load(sums + 3 * count, mask=there, other=0.0)
    else:
        # The metric is one number, whatever the entries are.
        nothing = tl.zeros([GROUPS], tl.float32)
        x, y, base, linear, d = PROLOGUE(
            nothing, nothing, nothing, nothing, nothing, table.prologue_numbers(row), cube_root, square_root
        )
    better, still = better_norm(rho, b_sq, s0, s1, s2, tl.load(row + LAM), d, METRIC)
    rho = tl.where(is_open, better, rho)
    tl.store(shared + RHO * count + g, rho, mask=there)
    tl.store(shared + OPEN * count + g, (is_open & still).to(tl.float32), mask=there)
    clear(shared, g, count, there, GROUPS)
    if METRIC and LAST:
        place = tl.load(kept + g, mask=there, other=0).to(tl.pointer_type(tl.float32))
        tl.store(place, rho, mask=moves(there, row))
