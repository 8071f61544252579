"""The loops of a compiled step: entries one by one, groups of columns, groups of adjacent entries.

A block of groups is updated once, from the first array read to the last one written: the prologue leaves b and the
metric of the block in scratch that stays in the cache, the norms of its groups are solved for there, and W is written.

Everywhere ``a`` are the arrays of a tensor as vectors of all its entries, ``k`` the numbers of its solve, and ``take``
the functions (prologue, solve, widen, narrow) that make a loop one method's, one regularizer's and one dtype's.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba as nb
import numpy as np

from ramda_theory.kernels.cpu.arithmetic import cube_root, f32, fast, index, inlined, mix, square_root, sums, vectorized
from ramda_theory.kernels.cpu.group_mcp import mcp_columns, mcp_shift, mcp_shift_in_scalar_metric
from ramda_theory.kernels.cpu.sizes import TOGETHER
from ramda_theory.kernels.cpu.solves import KNOWN, OPEN, UNCLEAR, exact_norm, exact_size, next_norm, soft, unclear

ROWS_PER_SUM = index(32)
"""Rows that are summed in float32 before they join a float64 total."""
SWEEPS = 12
"""Passes over the scratch of a block at most; what is left then is solved group by group."""
ONE_BY_ONE = index(8)
"""As soon as no more than one group in this many is open, those are solved one after another."""
ZERO, ONE = index(0), index(1)


class Arrays(NamedTuple):
    """W, the bits of a half-precision parameter (else W again), G, and three arrays of state, as vectors."""

    w: Any
    p: Any
    g: Any
    x: Any
    y: Any
    z: Any


class Solve(NamedTuple):
    """Sign of G; numbers of the prologue; of the entries' part; alpha lam_g, in float64 too; c; growth of norms.

    ``mcp`` is alpha/gamma and the reach gamma lam_g where group norms have an MCP.
    """

    sign: Any
    n: Any
    entry: Any
    lam: Any
    exact_lam: Any
    c: Any
    growth: Any
    mcp: Any


@nb.njit(**inlined)
def weight(w, p, widen, narrow, half):
    """W; a half-precision parameter that was changed from outside overrules its float32 copy."""
    if half:
        return w if narrow(w) == p else widen(p)
    return w


# -- entries ----------------------------------------------------------------------------------------------------------


@nb.njit(**inlined)
def entries(prologue, solve, widen, narrow, half, both, w, p, g, x, y, z, first, last, sign, n, k, c):
    """Step the entries first .. last - 1, psi acting on each alone."""
    vectorized()
    for j in range(first, last):
        before = weight(w[j], p[j], widen, narrow, half)
        x1, y1, base, linear, diag = prologue(sign * widen(g[j]), before, x[j], y[j], z[j], n, cube_root, square_root)
        x[j] = x1
        if both:
            y[j] = y1
        after = mix(before, solve(base, linear, diag, k), c)
        w[j] = after
        if half:
            p[j] = narrow(after)


# -- one group ---------------------------------------------------------------------------------------------------------


@nb.njit(**sums)
def vector_moments(b, d, first, last, rho, lam, metric):
    """||b||^2, s_0, s_1, s_2 in float32: for no more than some thousand entries from ``first`` on."""
    vectorized()
    b_sq, s0, s1, s2 = f32(0), f32(0), f32(0), f32(0)
    if metric:
        for j in range(first, last):
            diag = d[j]
            reciprocal = f32(1) / (rho * diag + lam)
            r = b[j] * reciprocal
            t = diag * reciprocal
            term = r * r
            b_sq += b[j] * b[j]
            s0 += term
            term *= t
            s1 += term
            s2 += term * t
    else:
        for j in range(first, last):
            b_sq += b[j] * b[j]
    return b_sq, s0, s1, s2


@nb.njit(**fast)
def vector_norm(b, d, first, last, rho, lam, metric):
    """The norm of the group of the entries first .. last - 1; ||b||^2 where there is no metric."""
    piece = index(2048)
    for _ in range(SWEEPS):
        b_sq, s0, s1, s2 = 0.0, 0.0, 0.0, 0.0
        for begin in range(first, last, piece):
            t, t0, t1, t2 = vector_moments(b, d, begin, min(begin + piece, last), f32(rho), f32(lam), metric)
            b_sq += t
            s0 += t0
            s1 += t1
            s2 += t2
        if not metric:
            return b_sq
        rho, known = next_norm(rho, b_sq, s0, s1, s2, lam)
        if known == KNOWN:
            return rho
        if known == UNCLEAR:
            break
    return exact_norm(b[first:last], d[first:last], lam)


# -- groups of columns ------------------------------------------------------------------------------------------------


@nb.njit(**inlined)
def first_row(
    prologue, widen, narrow, half, both, metric, w, p, g, x, y, z, b, d, b_sq, s0, s1, s2, rho, o, q, width, sign, n,
    l1, lam,
):  # fmt: skip
    """The prologue of a row from entry ``o`` on; b and d go to scratch from ``q`` on, their moments to the sums."""
    vectorized()
    for j in range(width):
        before = weight(w[o + j], p[o + j], widen, narrow, half)
        x1, y1, base, linear, diag = prologue(
            sign * widen(g[o + j]), before, x[o + j], y[o + j], z[o + j], n, cube_root, square_root
        )
        x[o + j] = x1
        if both:
            y[o + j] = y1
        beyond = soft(diag * base - linear, l1)
        b[q + j] = beyond
        b_sq[j] += beyond * beyond
        if metric:
            d[q + j] = diag
            reciprocal = f32(1) / (rho[j] * diag + lam)
            r = beyond * reciprocal
            t = diag * reciprocal
            first = r * r
            second = first * t
            s0[j] += first
            s1[j] += second
            s2[j] += second * t


@nb.njit(**fast)
def next_row(b, d, s0, s1, s2, rho, q, width, lam):
    """The moments of a row of the scratch at other norms."""
    vectorized()
    for j in range(width):
        diag = d[q + j]
        reciprocal = f32(1) / (rho[j] * diag + lam)
        r = b[q + j] * reciprocal
        t = diag * reciprocal
        first = r * r
        second = first * t
        s0[j] += first
        s1[j] += second
        s2[j] += second * t


@nb.njit(**inlined)
def last_row(narrow, widen, half, metric, w, p, b, d, shift, o, q, width, diag, c):
    """W of a row, as b / (d + lam / rho)."""
    vectorized()
    for j in range(width):
        before = weight(w[o + j], p[o + j], widen, narrow, half)
        x = b[q + j] / ((d[q + j] if metric else diag) + shift[j])
        after = mix(before, x, c)
        w[o + j] = after
        if half:
            p[o + j] = narrow(after)


@nb.njit(**fast)
def add_up(total, added, width):
    """Move float32 sums of some rows to the float64 totals of all."""
    vectorized()
    for j in range(width):
        total[j] += added[j]
        added[j] = f32(0)


@nb.njit(**fast)
def update_norms(norms, size, lam, t, t0, t1, t2, known):
    """`next_norm` of all groups of ``size`` columns that are open; how many still are."""
    still = 0
    for k in range(norms.size):
        if known[k] != OPEN:
            continue
        b_sq, s0, s1, s2 = 0.0, 0.0, 0.0, 0.0
        for j in range(k * size, (k + 1) * size):
            b_sq += t[j]
            s0 += t0[j]
            s1 += t1[j]
            s2 += t2[j]
        norms[k], known[k] = next_norm(norms[k], b_sq, s0, s1, s2, lam)
        still += known[k] == OPEN
    return still


@nb.njit(**fast)
def spread_norms(norms, size, rho):
    """The norm of every column's group."""
    for k in range(index(norms.size)):
        for j in range(size):
            rho[k * size + j] = norms[k]


@nb.njit(**fast)
def other_norms(norms, known, b, d, rows, size, lam):
    """The norms of a block that are not known yet, one after another."""
    width = index(norms.size) * size
    own_b, own_d = np.empty(rows * size, np.float32), np.empty(rows * size, np.float32)
    for k in range(index(norms.size)):
        if known[k] != KNOWN:
            for i in range(rows):
                for j in range(size):
                    own_b[i * size + j] = b[i * width + k * size + j]
                    own_d[i * size + j] = d[i * width + k * size + j]
            rho = np.float64(norms[k])
            norms[k] = (
                exact_norm(own_b, own_d, lam)
                if known[k] == UNCLEAR
                else vector_norm(own_b, own_d, ZERO, rows * size, rho, lam, True)
            )


@nb.njit(**fast)
def solve_block(norms, b, d, s0, s1, s2, t, t0, t1, t2, rho, rows, size, lam):
    """Norms of the groups of a block whose moments at their last norms are in ``t``, ``t0``, ``t1`` and ``t2``."""
    width = index(norms.size) * size
    known = np.full(norms.size, np.uint8(OPEN))
    still = update_norms(norms, size, lam, t, t0, t1, t2, known)
    for _ in range(SWEEPS):
        if still == 0 or index(still) * ONE_BY_ONE <= index(norms.size):
            break
        spread_norms(norms, size, rho)
        t0[:], t1[:], t2[:] = 0.0, 0.0, 0.0
        for first in range(ZERO, rows, ROWS_PER_SUM):
            for i in range(first, min(first + ROWS_PER_SUM, rows)):
                next_row(b, d, s0, s1, s2, rho, i * width, width, f32(lam))
            add_up(t0, s0, width)
            add_up(t1, s1, width)
            add_up(t2, s2, width)
        still = update_norms(norms, size, lam, t, t0, t1, t2, known)
    other_norms(norms, known, b, d, rows, size, lam)


@nb.njit(**inlined)
def columns(
    prologue, widen, narrow, half, both, metric, with_mcp, a, k, norms, start, rows, stride, size, b, d, rho
):  # fmt: skip
    """Step the groups of ``size`` columns whose ``norms`` are given; they begin at the entry ``start``."""
    width = index(norms.size) * size
    # Sums over some rows, and over all: of b^2, and the moments.
    added, s0, s1, s2 = np.zeros(width, f32), np.zeros(width, f32), np.zeros(width, f32), np.zeros(width, f32)
    t, t0, t1, t2 = np.zeros(width), np.zeros(width), np.zeros(width), np.zeros(width)
    lam = k.exact_lam
    w, p, g, x, y, z = a.w, a.p, a.g, a.x, a.y, a.z
    if metric:
        for j in range(norms.size):
            norms[j] *= k.growth
        spread_norms(norms, size, rho)
    for first in range(ZERO, rows, ROWS_PER_SUM):
        for i in range(first, min(first + ROWS_PER_SUM, rows)):
            first_row(
                prologue, widen, narrow, half, both, metric, w, p, g, x, y, z, b, d, added, s0, s1, s2, rho,
                start + i * stride, i * width, width, k.sign, k.n, k.entry[0], k.lam,
            )  # fmt: skip
        add_up(t, added, width)
        if metric:
            add_up(t0, s0, width)
            add_up(t1, s1, width)
            add_up(t2, s2, width)
    if with_mcp:
        mcp_columns(norms, size, rows, lam, k.mcp, np.float64(k.entry[4]), metric, b, d, rho)
    elif metric:
        solve_block(norms, b, d, s0, s1, s2, t, t0, t1, t2, rho, rows, size, lam)
        for j in range(norms.size):
            shift = k.lam / norms[j]
            for i in range(size):
                rho[index(j) * size + i] = shift
    else:
        shrink_columns(norms, size, rows, lam, np.float64(k.entry[4]), t, b, rho)
    for i in range(rows):
        last_row(narrow, widen, half, metric, w, p, b, d, rho, start + i * stride, i * width, width, k.entry[4], k.c)


@nb.njit(**fast)
def shrink_columns(norms, size, rows, lam, diag, total, b, shift):
    """Where d is one number: rho = (||b|| - lam) / d, and lam / rho."""
    width = index(norms.size) * size
    own = np.empty(rows * size, np.float32)
    for k in range(index(norms.size)):
        b_sq = 0.0
        for j in range(size):
            b_sq += total[k * size + j]
        if unclear(b_sq, lam):
            for i in range(rows):
                for j in range(size):
                    own[i * size + j] = b[i * width + k * size + j]
            each = shift_of(exact_size(own) - lam, lam, diag)
        else:
            each = shift_of(np.sqrt(b_sq) - lam, lam, diag)
        for j in range(size):
            shift[k * size + j] = each


@nb.njit(**fast)
def shift_of(beyond, lam, diag):
    """Lam / rho from ||b|| - lam; a NaN does not become a zero."""
    return f32(np.inf) if beyond <= 0.0 else f32(lam * diag / beyond)


# -- groups of adjacent entries ---------------------------------------------------------------------------------------


@nb.njit(**inlined)
def adjacent_prologue(prologue, widen, narrow, half, both, metric, w, p, g, x, y, z, b, d, o, count, sign, n, l1):
    """The prologue of ``count`` entries from ``o`` on; b and d go to scratch."""
    vectorized()
    for j in range(count):
        before = weight(w[o + j], p[o + j], widen, narrow, half)
        x1, y1, base, linear, diag = prologue(
            sign * widen(g[o + j]), before, x[o + j], y[o + j], z[o + j], n, cube_root, square_root
        )
        x[o + j] = x1
        if both:
            y[o + j] = y1
        b[j] = soft(diag * base - linear, l1)
        if metric:
            d[j] = diag


@nb.njit(**inlined)
def adjacent_write(narrow, widen, half, metric, w, p, b, d, o, first, last, shift, diag, c):
    """W of the entries first .. last - 1 of the scratch, as b / (d + lam / rho)."""
    vectorized()
    for j in range(first, last):
        before = weight(w[o + j], p[o + j], widen, narrow, half)
        after = mix(before, b[j] / ((d[j] if metric else diag) + shift), c)
        w[o + j] = after
        if half:
            p[o + j] = narrow(after)


@nb.njit(**inlined)
def adjacent(prologue, widen, narrow, half, both, metric, with_mcp, a, k, norms, start, size, b, d):
    """Step the groups of ``size`` adjacent entries whose ``norms`` are given; they begin at the entry ``start``."""
    together = max(index(TOGETHER) // size, ONE)
    lam, diag = k.exact_lam, np.float64(k.entry[4])
    for first in range(ZERO, index(norms.size), together):
        count = min(together, index(norms.size) - first)
        o = start + first * size
        adjacent_prologue(
            prologue, widen, narrow, half, both, metric, a.w, a.p, a.g, a.x, a.y, a.z, b, d, o, count * size, k.sign,
            k.n, k.entry[0],
        )  # fmt: skip
        for i in range(count):
            rho = np.float64(norms[first + i] * k.growth)
            if with_mcp:
                own = slice(i * size, (i + ONE) * size)
                if metric:
                    found, shift = mcp_shift(b[own], d[own], rho, lam, k.mcp[0], k.mcp[1])
                else:
                    found, shift = mcp_shift_in_scalar_metric(b[own], diag, lam, k.mcp[0], k.mcp[1])
                norms[first + i] = found
                adjacent_write(
                    narrow, widen, half, metric, a.w, a.p, b, d, o, i * size, (i + ONE) * size, shift, k.entry[4], k.c
                )
                continue
            found = vector_norm(b, d, i * size, (i + ONE) * size, rho, lam, metric)
            if metric:
                norms[first + i] = found
                shift = k.lam / norms[first + i]
            else:
                size_of = exact_size(b[i * size : (i + ONE) * size]) if unclear(found, lam) else np.sqrt(found)
                shift = shift_of(size_of - lam, lam, diag)
            adjacent_write(
                narrow, widen, half, metric, a.w, a.p, b, d, o, i * size, (i + ONE) * size, shift, k.entry[4], k.c
            )
