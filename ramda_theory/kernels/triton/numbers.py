"""The numbers of a step, worked out on the device for all tensors in one launch; gradients that are not finite.

Here alone float64 is used: one entry per tensor.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ramda_theory.kernels.triton.arithmetic import pointer, power

W, P, X, Y, Z, NORMS, STEP, WEIGHT_SUM = (tl.constexpr(column) for column in range(8))
"""Columns of the table of addresses; 0 where a tensor has none."""
ADDRESSES = tl.constexpr(8)
ENTRY_WEIGHT, FIXED, SCALED, ENTRY_NUMBER, GROUP_WEIGHT = (tl.constexpr(column) for column in range(5))
"""Columns of the table of a tensor's regularizer: the second number of an entry's solve is fixed + scale scaled."""
SPECS = tl.constexpr(5)
SIGN, MOMENTUM, OPTION = (tl.constexpr(column) for column in range(3))
"""Columns of the table of a parameter group's options: those of the method come last."""
OPTIONS = tl.constexpr(7)
STOP, FACTOR, C, LAM, GROWTH, ENTRY, PROLOGUE = (tl.constexpr(column) for column in (0, 1, 2, 3, 4, 5, 9))
"""Columns of the table of numbers: what stays as it is, the factor of G, c, alpha lam_g, the growth of norms, those of
an entry's solve, those of the prologue."""
NUMBERS = tl.constexpr(17)
NOTHING_STAYS, ALL_STAYS, W_STAYS = (tl.constexpr(number) for number in (0.0, 1.0, 2.0))


@triton.jit
def option(options, sources, group, column, live):
    """An option of the tensors' groups: a number of the table, or that in a tensor somewhere else on the device."""
    at = group * OPTIONS + column
    number = tl.load(options + at, mask=live, other=0.5)
    # Addresses are multiples of 4: the lowest bit tells a float64 from a float32.
    source = tl.load(sources + at, mask=live, other=0)
    wide = (source % 2) == 1
    there = source != 0
    double = tl.load((source - 1).to(tl.pointer_type(tl.float64)), mask=there & wide, other=0.0)
    single = tl.load(source.to(tl.pointer_type(tl.float32)), mask=there & (wide == 0), other=0.0)
    return tl.where(there, tl.where(wide, double, single.to(tl.float64)), number)


@triton.jit(do_not_specialize=["tensors"])
def advance(
    addresses,
    specs,
    groups,
    options,
    sources,
    found,
    grad_scale,
    numbers,
    tensors,
    RECURRENCE: tl.constexpr,
    FOUND: tl.constexpr,
    AVERAGES: tl.constexpr,
    SUMS: tl.constexpr,
    MASKED: tl.constexpr,
    UNSCALES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Count the step of every tensor and work out its ``numbers``, FOUND of them by the recurrence."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = i < tensors
    group = tl.load(groups + i, mask=live, other=0)
    # What rounding in a scheduler leaves below 0 counts as 0.
    lr = tl.maximum(option(options, sources, group, OPTION, live), 0.0)
    o = (
        lr,
        option(options, sources, group, OPTION + 1, live),
        option(options, sources, group, OPTION + 2, live),
        option(options, sources, group, OPTION + 3, live),
        option(options, sources, group, OPTION + 4, live),
    )
    step = tl.load(addresses + i * ADDRESSES + STEP, mask=live, other=0).to(tl.pointer_type(tl.int64))
    count = tl.load(step, mask=live, other=0) + 1
    t = count.to(tl.float64)
    before = tl.zeros([BLOCK], tl.float64)
    total = step.to(tl.pointer_type(tl.float64))
    if SUMS:
        total = tl.load(addresses + i * ADDRESSES + WEIGHT_SUM, mask=live, other=0).to(tl.pointer_type(tl.float64))
        before = tl.load(total, mask=live, other=0.0)
    after, scale, own = RECURRENCE(t, before, o)

    moves = live
    if MASKED:
        moves = live & (tl.where(live, tl.load(found).to(tl.int32), 1) == 0)
    tl.store(step, count, mask=moves)
    if SUMS:
        tl.store(total, after, mask=moves)
    row = numbers + i * NUMBERS
    # Sums weighted by s_t = 0 stay; other state does not.
    stays = tl.where(lr > 0, NOTHING_STAYS, ALL_STAYS if SUMS else W_STAYS)
    tl.store(row + STOP, tl.where(moves, stays, ALL_STAYS).to(tl.float32), mask=live)
    factor = option(options, sources, group, SIGN, live)
    if UNSCALES:
        factor /= tl.load(grad_scale).to(tl.float64)
    tl.store(row + FACTOR, factor.to(tl.float32), mask=live)
    c = tl.zeros([BLOCK], tl.float64) + 1.0
    if AVERAGES:
        c -= option(options, sources, group, MOMENTUM, live)
    tl.store(row + C, c.to(tl.float32), mask=live)
    # Groups have a threshold, however small it is.
    spec = specs + i * SPECS
    lam = tl.maximum(scale * tl.load(spec + GROUP_WEIGHT, mask=live, other=0.0), 1.2e-38)
    tl.store(row + LAM, lam.to(tl.float32), mask=live)
    growth = tl.zeros([BLOCK], tl.float64) + 1.0
    if SUMS:
        # While V / alpha and U / alpha stay, d grows as alpha^(1/3), b and lam as alpha, and norms as alpha^(2/3):
        # where the last norms times that are close, one update suffices.
        growth = tl.where(before > 0.1 * after, power(after / before, 2.0 / 3.0), 1.0)
    tl.store(row + GROWTH, growth.to(tl.float32), mask=live)
    weight = tl.load(spec + ENTRY_WEIGHT, mask=live, other=0.0)
    second = tl.load(spec + FIXED, mask=live, other=0.0) + scale * tl.load(spec + SCALED, mask=live, other=0.0)
    tl.store(row + ENTRY, (scale * weight).to(tl.float32), mask=live)
    tl.store(row + ENTRY + 1, second.to(tl.float32), mask=live)
    tl.store(row + ENTRY + 2, tl.load(spec + ENTRY_NUMBER, mask=live, other=0.0).to(tl.float32), mask=live)
    tl.store(row + ENTRY + 3, scale.to(tl.float32), mask=live)
    for j in tl.static_range(FOUND):
        tl.store(row + PROLOGUE + j, (t * 0.0 + own[j]).to(tl.float32), mask=live)


@triton.jit
def entry_numbers(row):
    """The numbers of an entry's solve."""
    k = row + ENTRY
    return tl.load(k), tl.load(k + 1), tl.load(k + 2), tl.load(k + 3)


@triton.jit
def prologue_numbers(row):
    """The numbers of the prologue; those that a method does not have are not looked at."""
    n = row + PROLOGUE
    return (
        tl.load(n),
        tl.load(n + 1),
        tl.load(n + 2),
        tl.load(n + 3),
        tl.load(n + 4),
        tl.load(n + 5),
        tl.load(n + 6),
        tl.load(n + 7),
    )


@triton.jit
def look(tiles, gradients, found, DTYPE: tl.constexpr, BLOCK: tl.constexpr):
    """Set the flag ``found`` if the squares of a tile of a gradient do not add up to a finite float32."""
    tile = tiles + tl.program_id(0) * 3
    tensor, first, size = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2)
    j = tl.arange(0, BLOCK)
    g = tl.load(pointer(gradients + tensor, DTYPE, False) + first + j, mask=j < size, other=0.0).to(tl.float32)
    total = tl.sum(g * g, 0)
    if (total < float("inf")) == 0:
        tl.store(found, True)
