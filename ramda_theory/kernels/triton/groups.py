"""The programs that step groups: one pass by teams that meet, or two launches.

A *block* is some neighbouring groups of a tensor, cut along the groups into tiles that fit on a chip; its tiles are the
*members* that together know its groups.  Every sum over a group is added up tile by tile, in the order of the tiles, so
that the result is the same from run to run.

- `step_groups`: every member holds its tile.  Members write their sums of the moments to scratch, meet, and each works
  out the same norms from all of them; they meet again for every further update.  Members that wait need the others to
  run: either a block has one member, or the launch is cooperative.
- `measure_groups` and `write_groups`: the member that is last to leave its moments solves for the norms, from memory
  where one update does not suffice; another launch steps the tiles.  Nobody waits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ramda_theory.kernels.triton import numbers as table
from ramda_theory.kernels.triton.arithmetic import floats
from ramda_theory.kernels.triton.solves import COLUMNS as ACROSS
from ramda_theory.kernels.triton.solves import moments, next_norm, soft
from ramda_theory.kernels.triton.tiles import moves, steps, update, write_state, write_weights

ADDRESSES, NORMS, NUMBERS = table.ADDRESSES, table.NORMS, table.NUMBERS
LAM, GROWTH, ENTRY = table.LAM, table.GROWTH, table.ENTRY

TENSOR, FIRST, ROWS, COLUMNS, GROUP, MEMBER, MEMBERS, BLOCK, SCRATCH, STRIDE, SIZE = (
    tl.constexpr(column) for column in range(11)
)
"""Columns of the table of tiles: tensor; first entry; rows (along the groups) and columns; group of the first column;
which member of how many, of which block; where the block's scratch begins; distance in memory of two rows (of two
columns, if groups lie along memory); columns of a group."""
TILE = tl.constexpr(11)
MOMENTS = tl.constexpr(4)
TOGETHER = tl.constexpr(16)
"""Members whose sums are added up at once."""
UPDATES = tl.constexpr(40)
"""Of a norm at most; a handful are usual."""


@triton.jit
def offsets(tile, RULE: tl.constexpr, ALIGNED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """Where the entries of a tile lie from its first one on, and which of BM x BN there are."""
    rows, columns = tl.load(tile + ROWS).to(tl.int32), tl.load(tile + COLUMNS).to(tl.int32)
    stride = tl.load(tile + STRIDE).to(tl.int32)
    if ALIGNED:
        stride = tl.multiple_of(stride, 4)
        if RULE == ACROSS:
            columns = tl.multiple_of(columns, 4)
        else:
            rows = tl.multiple_of(rows, 4)
    r, c = tl.arange(0, BM), tl.arange(0, BN)
    m = (r < rows)[:, None] & (c < columns)[None, :]
    if RULE == ACROSS:
        o = r[:, None] * stride + c[None, :]
    else:
        o = r[:, None] + c[None, :] * stride
    return o, m


@triton.jit
def prologue_of(
    tile, addresses, gradients, numbers, PROLOGUE: tl.constexpr, ARRAYS: tl.constexpr, METRIC: tl.constexpr,
    AVERAGES: tl.constexpr, RULE: tl.constexpr, DTYPE: tl.constexpr, ALIGNED: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """`update` of a tile; b, thresholded by the entries' part, and d (one number without METRIC) instead of the rest.

    Also where the entries lie.
    """
    tensor, first = tl.load(tile + TENSOR), tl.load(tile + FIRST)
    if ALIGNED:
        first = tl.multiple_of(first, 4)
    row = numbers + tensor * NUMBERS
    o, m = offsets(tile, RULE, ALIGNED, BM, BN)
    m = steps(m, row)
    w, x, y, base, linear, diag = update(
        addresses + tensor * ADDRESSES, gradients + tensor, first, o, m, row, PROLOGUE, ARRAYS, AVERAGES, DTYPE, ALIGNED
    )
    b = tl.where(m, soft(diag * base - linear, tl.load(row + ENTRY)), 0.0)
    return first, o, m, w, x, y, b, diag


@triton.jit
def group_of_column(tile, SEVERAL: tl.constexpr, BN: tl.constexpr):
    """Which group a column of a tile belongs to, whether it is its first, and how many groups that are there."""
    c = tl.arange(0, BN)
    there = c < tl.load(tile + COLUMNS).to(tl.int32)
    first = there
    group = c
    if SEVERAL:
        size = tl.load(tile + SIZE).to(tl.int32)
        group = c // size
        first = there & (c % size == 0)
    return tl.load(tile + GROUP) + group, first, there


@triton.jit
def over_group(column, tile, SEVERAL: tl.constexpr, BN: tl.constexpr):
    """For every column, the sum over the columns of its group."""
    if SEVERAL:
        size, columns = tl.load(tile + SIZE).to(tl.int32), tl.load(tile + COLUMNS).to(tl.int32)
        c = tl.arange(0, BN)
        first = c - c % size
        own = tl.where(c < columns, column, 0.0)
        column = tl.zeros([BN], tl.float32)
        for k in range(0, tl.minimum(size, columns)):
            column += tl.gather(own, tl.minimum(first + k, BN - 1), 0)
    return column


@triton.jit
def over_groups(s0, s1, s2, tile, SEVERAL: tl.constexpr, BN: tl.constexpr):
    """`over_group` of three sums."""
    return over_group(s0, tile, SEVERAL, BN), over_group(s1, tile, SEVERAL, BN), over_group(s2, tile, SEVERAL, BN)


@triton.jit
def leave_sums(scratch, member, members, b_sq, s0, s1, s2, BN: tl.constexpr):
    """Write a member's sums to scratch."""
    p = scratch + member * BN + tl.arange(0, BN)
    step = members * BN
    tl.store(p, b_sq)
    tl.store(p + step, s0)
    tl.store(p + 2 * step, s1)
    tl.store(p + 3 * step, s2)


@triton.jit
def add_up(scratch, members, tile, SEVERAL: tl.constexpr, METRIC: tl.constexpr, BN: tl.constexpr):
    """The sums of all members, in the order of the members."""
    c, k = tl.arange(0, BN), tl.arange(0, TOGETHER)
    step = members * BN
    b_sq, s0, s1, s2 = (
        tl.zeros([BN], tl.float32),
        tl.zeros([BN], tl.float32),
        tl.zeros([BN], tl.float32),
        tl.zeros([BN], tl.float32),
    )
    for begin in range(0, members, TOGETHER):
        there = (begin + k < members)[:, None]
        p = scratch + (begin + k)[:, None] * BN + c[None, :]
        b_sq += tl.sum(tl.load(p, mask=there, other=0.0, cache_modifier=".cg"), 0)
        if METRIC:
            s0 += tl.sum(tl.load(p + step, mask=there, other=0.0, cache_modifier=".cg"), 0)
            s1 += tl.sum(tl.load(p + 2 * step, mask=there, other=0.0, cache_modifier=".cg"), 0)
            s2 += tl.sum(tl.load(p + 3 * step, mask=there, other=0.0, cache_modifier=".cg"), 0)
    b_sq = over_group(b_sq, tile, SEVERAL, BN)
    if METRIC:
        s0, s1, s2 = over_groups(s0, s1, s2, tile, SEVERAL, BN)
    return b_sq, s0, s1, s2


@triton.jit
def sums_of(b, d, rho, lam, METRIC: tl.constexpr):
    """`moments` of a tile; without METRIC ||b||^2 alone is needed."""
    if METRIC:
        b_sq, s0, s1, s2 = moments(b, d, rho, lam)
    else:
        b_sq = tl.sum(b * b, 0)
        s0, s1, s2 = b_sq, b_sq, b_sq
    return b_sq, s0, s1, s2


@triton.jit
def better_norm(rho, b_sq, s0, s1, s2, lam, d, METRIC: tl.constexpr):
    """`next_norm`; where d is one number, rho = (||b|| - lam) / d and all are settled."""
    if METRIC:
        better, is_open = next_norm(rho, b_sq, s0, s1, s2, lam)
    else:
        size = tl.sqrt(b_sq)
        better, is_open = tl.where(size <= lam, 0.0, (size - lam) / d), size < 0
    return better, is_open


@triton.jit
def point_of(b, d, rho, lam):
    """What = b / (d + lam / rho), and 0 where rho is."""
    rho = rho[None, :]
    return tl.where(rho == 0, 0.0, b / (d + lam / rho))


@triton.jit
def meet(arrivals, target):
    """Wait until all members of a team have come; what they wrote before can be read then."""
    tl.debug_barrier()
    tl.atomic_add(arrivals, 1, sem="acq_rel", scope="gpu")
    while tl.atomic_add(arrivals, 0, sem="acquire", scope="gpu") < target:
        pass
    tl.debug_barrier()


@triton.jit
def step_tile(
    tile, addresses, gradients, numbers, scratch, meetings, PROLOGUE: tl.constexpr, ARRAYS: tl.constexpr,
    CHANGING: tl.constexpr, METRIC: tl.constexpr, AVERAGES: tl.constexpr, RULE: tl.constexpr, DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr, SEVERAL: tl.constexpr, MEET: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Step a tile as a member of its block's team, or alone."""
    first, o, m, w, x, y, b, d = prologue_of(
        tile, addresses, gradients, numbers, PROLOGUE, ARRAYS, METRIC, AVERAGES, RULE, DTYPE, ALIGNED, BM, BN
    )
    tensor, member, members = tl.load(tile + TENSOR), tl.load(tile + MEMBER), tl.load(tile + MEMBERS).to(tl.int32)
    at, row = addresses + tensor * ADDRESSES, numbers + tensor * NUMBERS
    write_state(at, first, o, m, x, y, CHANGING, ALIGNED)
    group, head, there = group_of_column(tile, SEVERAL, BN)
    norms = floats(at + NORMS, False) + group
    lam = tl.load(row + LAM)
    rho = tl.zeros([BN], tl.float32)
    if METRIC:
        rho = tl.maximum(tl.load(norms, mask=there, other=0.0) * tl.load(row + GROWTH), 0.0)
    room, arrivals = scratch + tl.load(tile + SCRATCH), meetings + tl.load(tile + BLOCK) * 2
    b_sq, s0, s1, s2 = sums_of(b, d, rho, lam, METRIC)
    if MEET:
        leave_sums(room, member, members, b_sq, s0, s1, s2, BN)
        meet(arrivals, members)
        b_sq, s0, s1, s2 = add_up(room, members, tile, SEVERAL, METRIC, BN)
    else:
        b_sq = over_group(b_sq, tile, SEVERAL, BN)
        if METRIC:
            s0, s1, s2 = over_groups(s0, s1, s2, tile, SEVERAL, BN)
    rho, is_open = better_norm(rho, b_sq, s0, s1, s2, lam, d, METRIC)
    if METRIC:
        updates = 1
        go = tl.max((is_open & there).to(tl.int32), 0)
        while go > 0:
            ignored, s0, s1, s2 = moments(b, d, rho, lam)
            if MEET:
                # Sums lie in two places by turns: who is behind still reads those of the round before.
                turn = room + members * (MOMENTS * BN) * (updates % 2)
                leave_sums(turn, member, members, ignored, s0, s1, s2, BN)
                meet(arrivals, (updates + 1) * members)
                ignored, s0, s1, s2 = add_up(turn, members, tile, SEVERAL, METRIC, BN)
            else:
                s0, s1, s2 = over_groups(s0, s1, s2, tile, SEVERAL, BN)
            better, still = next_norm(rho, b_sq, s0, s1, s2, lam)
            rho = tl.where(is_open, better, rho)
            is_open = is_open & still
            updates += 1
            go = tl.where(updates < UPDATES, tl.max((is_open & there).to(tl.int32), 0), 0)
    write_weights(at, first, o, m, row, w, point_of(b, d, rho, lam), AVERAGES, DTYPE, ALIGNED)
    if METRIC:
        tl.store(norms, rho, mask=moves(head & (group * 0 + member == 0), row))
    if MEET:
        # The last to leave makes the place ready for the next step.
        if tl.atomic_add(arrivals + 1, 1, sem="acq_rel", scope="gpu") == members - 1:
            tl.store(arrivals, 0)
            tl.store(arrivals + 1, 0)


@triton.jit(do_not_specialize=["count"])
def step_groups(
    tiles, addresses, gradients, numbers, scratch, meetings, count, PROLOGUE: tl.constexpr, ARRAYS: tl.constexpr,
    CHANGING: tl.constexpr, METRIC: tl.constexpr, AVERAGES: tl.constexpr, RULE: tl.constexpr, DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr, SEVERAL: tl.constexpr, MEET: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Step the tiles, one program each, or in turns if they MEET: members are neighbours and no program overtakes."""
    if MEET:
        for i in range(tl.program_id(0), count, tl.num_programs(0)):
            step_tile(
                tiles + i * TILE, addresses, gradients, numbers, scratch, meetings, PROLOGUE, ARRAYS, CHANGING, METRIC,
                AVERAGES, RULE, DTYPE, ALIGNED, SEVERAL, MEET, BM, BN,
            )  # fmt: skip
    else:
        step_tile(
            tiles + tl.program_id(0) * TILE, addresses, gradients, numbers, scratch, meetings, PROLOGUE, ARRAYS,
            CHANGING, METRIC, AVERAGES, RULE, DTYPE, ALIGNED, SEVERAL, MEET, BM, BN,
        )  # fmt: skip


@triton.jit
def moments_of(
    tile, addresses, gradients, numbers, rho, lam, PROLOGUE: tl.constexpr, ARRAYS: tl.constexpr, METRIC: tl.constexpr,
    AVERAGES: tl.constexpr, RULE: tl.constexpr, DTYPE: tl.constexpr, ALIGNED: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """s_0, s_1, s_2 of a tile in memory."""
    first, o, m, w, x, y, b, d = prologue_of(
        tile, addresses, gradients, numbers, PROLOGUE, ARRAYS, METRIC, AVERAGES, RULE, DTYPE, ALIGNED, BM, BN
    )
    b_sq, s0, s1, s2 = moments(b, d, rho, lam)
    return s0, s1, s2


@triton.jit
def measure_groups(
    tiles, addresses, gradients, numbers, scratch, meetings, PROLOGUE: tl.constexpr, ARRAYS: tl.constexpr,
    METRIC: tl.constexpr, AVERAGES: tl.constexpr, RULE: tl.constexpr, DTYPE: tl.constexpr, ALIGNED: tl.constexpr,
    SEVERAL: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Add the moments of a tile to those of its block; the last member leaves the norms of its groups."""
    own = tl.program_id(0)
    tile = tiles + own * TILE
    first, o, m, w, x, y, b, d = prologue_of(
        tile, addresses, gradients, numbers, PROLOGUE, ARRAYS, METRIC, AVERAGES, RULE, DTYPE, ALIGNED, BM, BN
    )
    tensor, member, members = tl.load(tile + TENSOR), tl.load(tile + MEMBER), tl.load(tile + MEMBERS).to(tl.int32)
    row = numbers + tensor * NUMBERS
    group, head, there = group_of_column(tile, SEVERAL, BN)
    norms = floats(addresses + tensor * ADDRESSES + NORMS, False) + group
    lam = tl.load(row + LAM)
    rho = tl.zeros([BN], tl.float32)
    if METRIC:
        rho = tl.maximum(tl.load(norms, mask=there, other=0.0) * tl.load(row + GROWTH), 0.0)
    room, arrivals = scratch + tl.load(tile + SCRATCH), meetings + tl.load(tile + BLOCK) * 2
    b_sq, s0, s1, s2 = sums_of(b, d, rho, lam, METRIC)
    leave_sums(room, member, members, b_sq, s0, s1, s2, BN)
    tl.debug_barrier()
    if tl.atomic_add(arrivals, 1, sem="acq_rel", scope="gpu") == members - 1:
        tl.debug_barrier()
        tl.store(arrivals, 0)
        b_sq, s0, s1, s2 = add_up(room, members, tile, SEVERAL, METRIC, BN)
        rho, is_open = better_norm(rho, b_sq, s0, s1, s2, lam, d, METRIC)
        if METRIC:
            updates = 1
            go = tl.max((is_open & there).to(tl.int32), 0)
            while go > 0:
                s0, s1, s2 = tl.zeros([BN], tl.float32), tl.zeros([BN], tl.float32), tl.zeros([BN], tl.float32)
                for k in range(0, members):
                    t0, t1, t2 = moments_of(
                        tiles + (own - member + k) * TILE, addresses, gradients, numbers, rho, lam, PROLOGUE, ARRAYS,
                        METRIC, AVERAGES, RULE, DTYPE, ALIGNED, BM, BN,
                    )  # fmt: skip
                    s0, s1, s2 = s0 + t0, s1 + t1, s2 + t2
                s0, s1, s2 = over_groups(s0, s1, s2, tile, SEVERAL, BN)
                better, still = next_norm(rho, b_sq, s0, s1, s2, lam)
                rho = tl.where(is_open, better, rho)
                is_open = is_open & still
                updates += 1
                go = tl.where(updates < UPDATES, tl.max((is_open & there).to(tl.int32), 0), 0)
        tl.store(norms, rho, mask=moves(head, row))


@triton.jit
def write_groups(
    tiles, addresses, gradients, numbers, PROLOGUE: tl.constexpr, ARRAYS: tl.constexpr, CHANGING: tl.constexpr,
    METRIC: tl.constexpr, AVERAGES: tl.constexpr, RULE: tl.constexpr, DTYPE: tl.constexpr, ALIGNED: tl.constexpr,
    SEVERAL: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Step a tile, the norms of its groups being known."""
    tile = tiles + tl.program_id(0) * TILE
    first, o, m, w, x, y, b, d = prologue_of(
        tile, addresses, gradients, numbers, PROLOGUE, ARRAYS, METRIC, AVERAGES, RULE, DTYPE, ALIGNED, BM, BN
    )
    tensor = tl.load(tile + TENSOR)
    at, row = addresses + tensor * ADDRESSES, numbers + tensor * NUMBERS
    group, head, there = group_of_column(tile, SEVERAL, BN)
    rho = tl.load(floats(at + NORMS, False) + group, mask=there, other=0.0)
    write_state(at, first, o, m, x, y, CHANGING, ALIGNED)
    write_weights(at, first, o, m, row, w, point_of(b, d, rho, tl.load(row + LAM)), AVERAGES, DTYPE, ALIGNED)
