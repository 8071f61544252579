"""Compiled loops of the fused step: RAMDA on float32 tensors in the memory of the CPU, many tensors per call.

For the group LASSO the minimiser of a group is x = b / (d + lam / rho), where b = P W^0 - V, d is the diagonal of P
and rho solves N(rho) = ||b / (rho d + lam)|| = 1 (see `ramda_theory.regularizers.scalar_equation`).  A first pass
updates V and U and sums, at the norm rho that the group had in the step before, the moments
s_k = sum b^2 d^k / (rho d + lam)^(k+2), k = 0 .. 4.  They tell where N = 1 and how far off that answer can be at most,
so that nearly all groups need no other pass.  The last pass writes W.  Tensors are traversed row by row, as wide as
possible, and of large ones nothing is kept per entry between passes: memory decides, and what is long past in it is as
cheap to compute as to read again.

Two habits let the compiler turn these loops into vector instructions: scratch is one array, cut at constant distances,
and indices are unsigned.  Compilation takes 10 to 20 seconds in the first step ever and is cached on disk; that all of
it is in one file is for the cache, which watches the file of the function that is called and no other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba as nb
import numpy as np
from numba import carray, types
from numba.extending import intrinsic

f32, index = np.float32, np.uint64

TOLERANCE = 5e-6
"""Bound on |N(rho) - 1|, which is the residual of (7) in units of weight_sum lam_g."""
WIDTH = 8192
"""Columns that are traversed together at most: what the scratch has room for."""
KEPT = 2**16
"""The metric of a block with no more entries is kept from its first pass to its last; else it is computed again."""
ROWS_PER_SUM = index(32)
"""Rows that are summed in float32 before they join a float64 total."""
SWEEPS = 8
"""Passes for the moments at most; what is left then is solved group by group."""
FEW = index(32)
"""As soon as no more than one group in this many is open, those are solved one by one."""
ROUNDING = 1e-6
"""Relative error of sums in float32, generously."""
TOGETHER = index(64)
"""Groups whose norms are looked for together."""
MAX_UPDATES = 15
"""Newton updates for one group at most; 11 are the most ever seen."""

fast: dict[str, Any] = {"fastmath": {"contract"}, "error_model": "numpy", "nogil": True}
"""Options of loops that compute entry by entry: a multiplication and an addition may round once."""
sums: dict[str, Any] = {**fast, "fastmath": {"contract", "reassoc"}}
"""Options of loops that add up: terms may be added in another order."""

ZERO, ONE = index(0), index(1)
SEED = f32(0x54A1F000)
SMALLEST = f32(2.0**-126)
"""The smallest normal number."""
THIRD = f32(1 / 3)


@nb.njit(**fast)
def cube_root(a):
    """a^(1/3) for a >= 0 in float32, to 1e-7: a guess from the exponent, and a polynomial."""
    tiny = a < f32(1e-30)
    a = a * f32(2.0**24) if tiny else a
    # The bits of a float are a logarithm of it: a constant minus a third of them are the bits of a^(-1/3), to 3.5%.
    r = np.int32(SEED - f32(np.float32(a).view(np.int32)) * THIRD).view(np.float32)
    # With y = a r^2 and h = 1 - y r: a^(1/3) = y (1 - h)^(-2/3), here by the best polynomial of sixth degree for
    # |h| < 0.103, in three pieces that do not wait for each other.
    y = r * r * a
    h = f32(1) - y * r
    square = h * h
    first = f32(0.66666669) + f32(0.55555564) * h
    second = f32(0.49379089) + f32(0.45262152) * h
    third = f32(0.42947927) + f32(0.40711175) * h
    y = y + y * h * (first + square * (second + square * third))
    return y * f32(2.0**-8) if tiny else y


@nb.njit(**fast)
def mix(w, x, c):
    """(1 - c) w + c x as in `torch.lerp`: exactly w where x = w, exactly x where c = 1; 0 instead of denormals.

    A weight that shrinks geometrically would end in them, and arithmetic with them takes a hundred times as long.
    """
    mixed = w + c * (x - w) if c < f32(0.5) else x - (x - w) * (f32(1) - c)
    return f32(0) if abs(mixed) < SMALLEST else mixed


def _wide_vectors(typingctx: Any) -> Any:
    """Compile the calling function for the widest vectors that the processor has; LLVM prefers 256 bits to 512."""

    def codegen(context, builder, signature, args):
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')  # llvmlite's own `add` knows no such name
        return context.get_dummy_value()

    return types.void(), codegen


wide_vectors: Any = intrinsic(_wide_vectors)


# -- the norms of groups ----------------------------------------------------------------------------------------------


@nb.njit(**fast)
def mean_square(z, v2, v3, v4):
    """E (1 + z u)^-2 from the central moments of u, up to z^4; never negative."""
    return max(1.0 + z * z * (3.0 * v2 + z * (-4.0 * v3 + z * 5.0 * v4)), 1e-9)


@nb.njit(**fast)
def truncation(z, v4, low, high, value):
    """A bound on half the relative error of `mean_square` = ``value`` where -low <= u <= high.

    The rest of the series is at most 6 |z|^5 E |u|^5 / min(1 + z u)^7, and E |u|^5 <= max |u| E u^4.
    """
    least = min(1.0, 1.0 + z * high, 1.0 - z * low)
    return 3.0 * abs(z) ** 5 * v4 * max(low, high) / (least**7 * value) if least > 0.0 else np.inf


# Where things are in the float64 scratch for `TOGETHER` groups: rho, s_0 .. s_4 and the largest d, and what follows.
APART = 72
RHO, S0, S1, S2, S3, S4, TOP, MEAN, V2, V3, V4, HIGH, E, CHANGE, SETTLED = (index(APART * k) for k in range(15))


@nb.njit(**fast)
def next_norms(m, count, lam):
    """The root of N(rho) = 1 or a better rho, from rho and the moments at it, for ``count`` groups; whether settled.

    Let t = d / (rho d + lam), distributed as q^2 / s_0 with q = b / (rho d + lam), and u = t - E t, e = 1 + delta E t.
    Then N(rho + delta)^2 = s_0 E (1 + z u)^-2 / e^2 with z = delta / e.
    """
    wide_vectors()
    for k in range(count):
        rho, s0 = m[RHO + k], m[S0 + k]
        mean, e2, e3, e4 = m[S1 + k] / s0, m[S2 + k] / s0, m[S3 + k] / s0, m[S4 + k] / s0
        v2 = max(e2 - mean * mean, 0.0)
        m[MEAN + k] = mean
        m[V2 + k] = v2
        m[V3 + k] = e3 - mean * (3.0 * e2 - 2.0 * mean * mean)
        # Differences of sums that are right to float32.
        m[V4 + k] = max(e4 - mean * (4.0 * e3 - mean * (6.0 * e2 - 3.0 * mean * mean)), v2 * v2) + ROUNDING * mean**4
        m[HIGH + k] = max(m[TOP + k] / (rho * m[TOP + k] + lam) - mean, 0.0) + ROUNDING * mean
        m[E + k] = np.sqrt(s0)
        m[CHANGE + k] = np.inf

    # N(rho + delta) = 1: iterate e = sqrt(s_0 E (1 + z u)^-2), whose slope is small.
    for _ in range(30):
        moving = 0
        for k in range(count):
            e, mean = m[E + k], m[MEAN + k]
            square = mean_square((e - 1.0) / (mean * e), m[V2 + k], m[V3 + k], m[V4 + k])
            moves = m[CHANGE + k] > 1e-8 * e
            following = np.sqrt(m[S0 + k] * square) if moves else e
            m[CHANGE + k] = abs(following - e)
            m[E + k] = following
            moving += moves
        if moving == 0:
            break

    for k in range(count):
        rho, s0, mean, v2, v3, v4 = m[RHO + k], m[S0 + k], m[MEAN + k], m[V2 + k], m[V3 + k], m[V4 + k]
        high, e, norm = m[HIGH + k], m[E + k], np.sqrt(s0)
        sound = (s0 < np.inf) & (m[S1 + k] > 0.0) & (m[S4 + k] < np.inf)
        # The group is zero where N(0) <= 1, and N falls.  What is too close to that is left to float64.
        to_zero = 1.0 - rho * mean
        z = -rho / to_zero
        value = mean_square(z, v2, v3, v4)
        error = truncation(z, v4, mean, high, value)
        at_zero = norm * np.sqrt(value) / to_zero
        tells = (to_zero > 0.05) & ((norm < 1.0) | (to_zero > 0.99))
        zero = tells & (at_zero * (1.0 + error) < 1.0 - 1e-5)
        near_threshold = tells & (error < 0.1) & (at_zero < 1.0 + 1e-5)

        z = (e - 1.0) / (mean * e)
        root = rho + (e - 1.0) / mean
        error = truncation(z, v4, mean, high, mean_square(z, v2, v3, v4))
        found = (m[CHANGE + k] <= 1e-8 * e) & (root > 0.0) & (not near_threshold)
        # Close to the threshold rho is more sensitive than N.
        exact = found & (error <= TOLERANCE * min(1.0, 10.0 * root * mean))
        close = found & (error < 0.1)
        # The tangent of 1/N, which is concave: it ends at or below the root.
        tangent = max(rho + (norm - 1.0) / mean, 0.0)
        better = 0.0 if zero else root if close | exact else tangent
        m[RHO + k] = better if sound else 0.0
        m[SETTLED + k] = 1.0 if (zero | exact if sound else (s0 == 0.0) & (rho == 0.0)) else 0.0


@nb.njit(**sums)
def exact_norm(b, d, lam):
    """The norm of one group in float64 as `group_lasso_norms` finds it; NaN for such data, negative on failure."""
    size_sq, slope, far_sq = 0.0, 0.0, 0.0
    for j in range(b.size):
        bj, dj = np.float64(b[j]), np.float64(d[j])
        size_sq += bj * bj
        slope += bj * bj * dj
        far_sq += (bj / dj) * (bj / dj)
    size, far = np.sqrt(size_sq), np.sqrt(far_sq)
    if size <= lam:
        return 0.0
    if not far < np.inf:
        return np.nan
    rho = far
    for update in range(MAX_UPDATES + 1):
        s, m = 0.0, 0.0
        for j in range(b.size):
            dj = np.float64(d[j])
            reciprocal = 1.0 / (rho * dj + lam)
            q = b[j] * reciprocal
            s += q * q
            m += q * q * dj * reciprocal
        step = (np.sqrt(s) - 1.0) * s / m
        if update == 0:
            rho = max((size - lam) * size_sq / slope, far + step)
        elif step <= 1e-9 * rho:
            return rho
        else:
            rho += step
    return -1.0


# -- groups of columns ------------------------------------------------------------------------------------------------


class Arrays(NamedTuple):
    """W, G, W^0, V, U of one tensor, as vectors of all its entries."""

    w: Any
    g: Any
    anchor: Any
    v: Any
    u: Any


class Numbers(NamedTuple):
    """s with the sign of G, s, eps, alpha lam_g (negative: no psi), alpha l2, c, growth of norms; float32."""

    signed: Any
    s: Any
    eps: Any
    lam: Any
    l2: Any
    c: Any
    growth: Any


# Where things are in the scratch of a block: rho of every column, five sums, and the largest d.  Not whole pages apart:
# a processor mistakes a load for one of what was just stored at the same place of another page.
PITCH = WIDTH + 144
SUMS, LARGEST = index(PITCH), index(6 * PITCH)
SUM_1, SUM_2, SUM_3, SUM_4 = (index((1 + k) * PITCH) for k in range(1, 5))
MOMENTS = index(5)


@nb.njit(**fast)
def column_moments(a, n, start, rows, stride, width, update, keep, scratch, metric, totals):
    """``totals[k]`` = s_k of ``width`` columns at the rho in ``scratch``, and their largest d; V and U first."""
    wide_vectors()
    for j in range(width):
        scratch[LARGEST + j] = f32(0)
    for k in range(MOMENTS):
        for j in range(width):
            scratch[SUMS + k * SUMS + j] = f32(0)
            totals[k, j] = 0.0
    for first in range(ZERO, rows, ROWS_PER_SUM):
        for i in range(first, min(first + ROWS_PER_SUM, rows)):
            o = start + i * stride
            p = i * width if keep else ZERO
            if update:
                for j in range(width):
                    g, v, u = a.g[o + j], a.v[o + j], a.u[o + j]  # all loads before a store, for the same reason
                    u += n.s * g * g
                    a.v[o + j] = v + n.signed * g
                    a.u[o + j] = u
                    metric[p + j] = cube_root(u) + n.eps
            elif not keep:
                for j in range(width):
                    metric[j] = cube_root(a.u[o + j]) + n.eps
            for j in range(width):
                d = metric[p + j]
                b = d * a.anchor[o + j] - a.v[o + j]
                reciprocal = f32(1) / (scratch[j] * d + n.lam)
                q = b * reciprocal
                t = d * reciprocal
                s0 = q * q
                s1 = s0 * t
                s2 = s1 * t
                s3 = s2 * t
                scratch[SUMS + j] += s0
                scratch[SUM_1 + j] += s1
                scratch[SUM_2 + j] += s2
                scratch[SUM_3 + j] += s3
                scratch[SUM_4 + j] += s3 * t
                scratch[LARGEST + j] = max(scratch[LARGEST + j], d)
        for k in range(MOMENTS):
            for j in range(width):
                totals[k, j] += scratch[SUMS + k * SUMS + j]
                scratch[SUMS + k * SUMS + j] = f32(0)


@nb.njit(**fast)
def update_norms(norms, size, lam, scratch, totals, m, still_open):
    """`next_norms` of all groups of ``size`` columns; how many groups ``still_open`` lists."""
    number = ZERO
    for first in range(ZERO, index(norms.size), TOGETHER):
        count = min(TOGETHER, index(norms.size) - first)
        for k in range(count):
            m[RHO + k] = norms[first + k]
            m[TOP + k] = 0.0
        for c in range(MOMENTS):
            for k in range(count):
                m[S0 + c * S0 + k] = 0.0
        # The columns j of all groups together: the usual groups have one.
        for j in range(size):
            for c in range(MOMENTS):
                for k in range(count):
                    m[S0 + c * S0 + k] += totals[c, (first + k) * size + j]
            for k in range(count):
                m[TOP + k] = max(m[TOP + k], np.float64(scratch[LARGEST + (first + k) * size + j]))
        next_norms(m, count, lam)
        for k in range(count):
            norms[first + k] = m[RHO + k]
            if m[SETTLED + k] == 0.0:
                still_open[number] = first + k
                number += ONE
    return number


@nb.njit(**fast)
def exact_norms(norms, chosen, a, n, start, rows, stride, size, lam):
    """`exact_norm` of the groups ``chosen``; on how many it failed."""
    count = index(chosen.size)
    anchor = np.empty((count, rows * size), np.float32)
    b, d = np.empty_like(anchor), np.empty_like(anchor)
    for i in range(rows):  # loads alone: none of them waits for arithmetic
        for k in range(count):
            o = start + i * stride + chosen[k] * size
            for j in range(size):
                anchor[k, i * size + j] = a.anchor[o + j]
                b[k, i * size + j] = a.v[o + j]
                d[k, i * size + j] = a.u[o + j]
    for k in range(count):
        for j in range(rows * size):
            d[k, j] = cube_root(d[k, j]) + n.eps
            b[k, j] = d[k, j] * anchor[k, j] - b[k, j]
    failed = 0
    for k in range(count):
        rho = exact_norm(b[k], d[k], lam)
        failed += rho < 0.0
        norms[chosen[k]] = rho if rho >= 0.0 else np.nan
    return failed


@nb.njit(**fast)
def spread(norms, size, scratch):
    """The norm of every column's group into ``scratch``."""
    for k in range(index(norms.size)):
        for j in range(size):
            scratch[k * size + j] = norms[k]


@nb.njit(**fast)
def write_columns(a, n, start, rows, stride, width, keep, scratch, metric):
    """W of ``width`` columns from the rho in ``scratch``, as b / (d + lam / rho)."""
    wide_vectors()
    for j in range(width):
        scratch[j] = n.lam / scratch[j]
    for i in range(rows):
        o = start + i * stride
        if keep:
            p = i * width
            for j in range(width):
                d = metric[p + j]
                a.w[o + j] = mix(a.w[o + j], (d * a.anchor[o + j] - a.v[o + j]) / (d + scratch[j]), n.c)
        else:
            for j in range(width):
                d = cube_root(a.u[o + j]) + n.eps
                a.w[o + j] = mix(a.w[o + j], (d * a.anchor[o + j] - a.v[o + j]) / (d + scratch[j]), n.c)


@nb.njit(**fast)
def step_columns(a, n, norms, start, rows, stride, size, lam, scratch, metric, m, report):
    """Step the groups of ``size`` columns whose ``norms`` are given; they begin at the entry ``start``."""
    wide_vectors()
    width = index(norms.size) * size
    keep = rows * width <= index(KEPT)
    totals = np.empty((5, width))
    still_open = np.empty(norms.size, np.uint64)
    few = max(index(norms.size) // FEW, ONE)
    count = ZERO
    for k in range(index(norms.size)):
        norms[k] *= n.growth
    report[0] += 1
    for sweep in range(SWEEPS):
        spread(norms, size, scratch)
        column_moments(a, n, start, rows, stride, width, sweep == 0, keep, scratch, metric, totals)
        count = update_norms(norms, size, lam, scratch, totals, m, still_open)
        report[1] += 1
        if count <= few:
            break
    for first in range(ZERO, count, few):
        chosen = still_open[first : min(first + few, count)]
        report[2] += chosen.size
        report[3] += exact_norms(norms, chosen, a, n, start, rows, stride, size, lam)
    spread(norms, size, scratch)
    write_columns(a, n, start, rows, stride, width, keep, scratch, metric)


# -- groups of adjacent entries ---------------------------------------------------------------------------------------


@nb.njit(**sums)
def row_moments(b, d, first, last, rho, lam):
    """s_0 .. s_4 at ``rho`` and the largest d, in float32: for no more than some thousand entries from ``first`` on."""
    wide_vectors()
    s0, s1, s2, s3, s4, largest = f32(0), f32(0), f32(0), f32(0), f32(0), np.int32(0)
    for j in range(first, last):
        reciprocal = f32(1) / (rho * d[j] + lam)
        q = b[j] * reciprocal
        t = d[j] * reciprocal
        term = q * q
        s0 += term
        term *= t
        s1 += term
        term *= t
        s2 += term
        term *= t
        s3 += term
        s4 += term * t
        largest = max(largest, np.float32(d[j]).view(np.int32))  # positive floats compare as their bits do
    return s0, s1, s2, s3, s4, np.int32(largest).view(np.float32)


@nb.njit(**fast)
def step_rows(a, n, norms, start, size, lam, m, report):
    """Step the groups of ``size`` adjacent entries whose ``norms`` are given; they begin at the entry ``start``."""
    wide_vectors()
    piece = index(1024)
    # So few groups together that what is kept of them stays close at hand.
    together = max(min(TOGETHER, index(4096) // size), ONE)
    b, d = np.empty(together * size, np.float32), np.empty(together * size, np.float32)
    for first in range(ZERO, index(norms.size), together):
        count = min(together, index(norms.size) - first)
        o = start + first * size
        for j in range(count * size):
            g, v, u = a.g[o + j], a.v[o + j], a.u[o + j]
            v += n.signed * g
            u += n.s * g * g
            a.v[o + j] = v
            a.u[o + j] = u
            d[j] = cube_root(u) + n.eps
            b[j] = d[j] * a.anchor[o + j] - v
        for k in range(count):
            rho = norms[first + k] * n.growth
            s0, s1, s2, s3, s4, largest = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for begin in range(k * size, (k + ONE) * size, piece):
                end = min(begin + piece, (k + ONE) * size)
                t0, t1, t2, t3, t4, top = row_moments(b, d, begin, end, rho, n.lam)
                s0 += t0
                s1 += t1
                s2 += t2
                s3 += t3
                s4 += t4
                largest = max(largest, np.float64(top))
            m[RHO + k], m[TOP + k] = rho, largest
            m[S0 + k], m[S1 + k], m[S2 + k], m[S3 + k], m[S4 + k] = s0, s1, s2, s3, s4
        next_norms(m, count, lam)
        for k in range(count):
            rho = m[RHO + k]
            if m[SETTLED + k] == 0.0:
                rho = exact_norm(b[k * size : (k + ONE) * size], d[k * size : (k + ONE) * size], lam)
                report[2] += 1
                report[3] += rho < 0.0
            norms[first + k] = rho if rho >= 0.0 else np.nan
            shift = n.lam / norms[first + k]
            for j in range(k * size, (k + ONE) * size):
                a.w[o + j] = mix(a.w[o + j], b[j] / (d[j] + shift), n.c)


# -- tensors without groups, and all together -------------------------------------------------------------------------


@nb.njit(**fast)
def step_entries(a, n, first, last):
    """Step the entries first .. last - 1 with psi = lam |x| + l2/2 x^2, or without psi if lam is negative."""
    wide_vectors()
    if n.lam < f32(0):
        for j in range(first, last):
            a.v[j] += n.signed * a.g[j]
            a.u[j] += n.s * a.g[j] * a.g[j]
            a.w[j] = mix(a.w[j], a.anchor[j] - a.v[j] / (cube_root(a.u[j]) + n.eps), n.c)
    else:
        for j in range(first, last):
            a.v[j] += n.signed * a.g[j]
            a.u[j] += n.s * a.g[j] * a.g[j]
            d = cube_root(a.u[j]) + n.eps
            b = d * a.anchor[j] - a.v[j]
            beyond = b - n.lam if b > n.lam else b + n.lam if b < -n.lam else b * f32(0)  # NaN stays NaN
            a.w[j] = mix(a.w[j], beyond / (d + n.l2), n.c)


def _pointer_to(kind: Any) -> Any:
    """A function that takes an address for a pointer to ``kind``."""

    def pointer(typingctx: Any, address: Any) -> Any:
        def codegen(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), codegen

    return intrinsic(pointer)


pointer, pointer_to_float64 = _pointer_to(types.float32), _pointer_to(types.float64)


@nb.njit(**fast)
def vector(address, size):
    """``size`` floats in memory."""
    return carray(pointer(address), size)


@nb.njit(**fast)
def advance(addresses, rates):
    """Count the step of every tensor; its `Numbers`."""
    numbers = np.empty((len(addresses), 7))
    for i in range(len(addresses)):
        sign, eta, eps, c, weight, l2 = rates[i]
        step, weight_sum = carray(pointer(addresses[i, 6]), 1), carray(pointer_to_float64(addresses[i, 7]), 1)
        before = weight_sum[0]
        # t <- t + 1,  s_t = eta sqrt(t),  alpha_t = alpha_{t-1} + s_t
        step[0] += f32(1)
        s = eta * np.sqrt(np.float64(step[0]))
        alpha = before + s
        weight_sum[0] = alpha
        lam = alpha * weight
        if addresses[i, 5] != 0:
            lam = max(lam, np.float64(SMALLEST))  # groups have a threshold, however small it is
        # While V / alpha and U / alpha stay, d grows as alpha^(1/3), b and lam as alpha, and norms as alpha^(2/3).
        # Where the last norm times that is close, one pass suffices.
        growth = (alpha / before) ** (2 / 3) if before > 0.1 * alpha else 1.0
        numbers[i] = sign * s, s, eps, lam, alpha * l2, c, growth
    return numbers


@nb.njit(**sums)
def sum_of_squares(x, first, last):
    """||x||^2 of the entries first .. last - 1 in float32: not finite where one is not, or its square."""
    total = f32(0)
    for j in range(first, last):
        total += x[j] * x[j]
    return total


@nb.njit(**fast, cache=True)
def squares(units, addresses):
    """`sum_of_squares` of the tensors at ``addresses``, over the parts (tensor, first, last + 1) in ``units``."""
    totals = np.zeros(addresses.size)
    for i in range(len(units)):
        x = vector(addresses[units[i, 0]], units[i, 2])
        totals[units[i, 0]] += sum_of_squares(x, index(units[i, 1]), index(units[i, 2]))
    return totals


@nb.njit(**fast, cache=True)
def begin(addresses, rates):
    """`advance`, for a step that several calls of `run` make."""
    return advance(addresses, rates)


@nb.njit(**fast, cache=True)
def run(units, addresses, shapes, numbers, report):
    """One step of every tensor, or part of one, that ``units`` lists; where s = 0, nothing.

    Parameters
    ----------
    units : int64 array, (units, 3)
        Tensor, first group, last group + 1 (entries, where there are no groups); all of one i of ``shapes``.
    addresses : int64 array, (tensors, 8)
        Of W, G, W^0, V, U, the norms of the groups in the last step (0: no groups), t (float32) and alpha (float64).
    shapes : int64 array, (tensors, 4)
        Sizes of the four axes (kept, reduced, kept, reduced) that a tensor has to these loops: group (i, k) is
        [i, :, k, :].
    numbers : float64 array, (tensors, 7)
        `Numbers` of every tensor.
    report : int64 array, (4,)
        Added to: blocks of columns, passes for their moments, groups solved one by one, groups on which that failed.
    """
    wide_vectors()
    scratch, metric, m = np.empty(7 * PITCH, np.float32), np.empty(KEPT, np.float32), np.empty(15 * APART)
    for i in range(len(units)):
        tensor, first, last = units[i, 0], index(units[i, 1]), index(units[i, 2])
        signed, s, eps, lam, l2, c, growth = numbers[tensor]
        if s == 0.0:
            continue
        n = Numbers(f32(signed), f32(s), f32(eps), f32(lam), f32(l2), f32(c), f32(growth))
        outer, reduced, middle, inner = shapes[tensor]
        entries = outer * reduced * middle * inner
        at = addresses[tensor]
        a = Arrays(
            vector(at[0], entries), vector(at[1], entries), vector(at[2], entries), vector(at[3], entries),
            vector(at[4], entries),
        )  # fmt: skip
        if at[5] == 0:
            step_entries(a, n, first, last)
            continue
        norms = vector(at[5], outer * middle)[first:last]
        rows, kept, size = index(reduced), index(middle), index(inner)
        if rows == ONE:
            step_rows(a, n, norms, first * size, size, lam, m, report)
        else:
            before = first // kept  # the groups of one outermost index come together
            start = before * rows * kept * size + (first - before * kept) * size
            step_columns(a, n, norms, start, rows, kept * size, size, lam, scratch, metric, m, report)


@nb.njit(**fast, cache=True)
def run_all(units, addresses, shapes, rates, check, report):
    """A step in one call: `squares`, if ``check``, `advance` and `run`; whether all gradients were finite.

    Parameters
    ----------
    units, addresses, shapes, report
        As in `run`.
    rates : float64 array, (tensors, 6)
        1 or -1, the sign of G; eta (where it is 0, only t changes), eps, c, lam_g (negative: no psi), l2.
    check : bool
        Whether to change nothing unless the norm of every gradient is a finite float32.
    """
    if check:
        for i in range(len(addresses)):
            outer, reduced, middle, inner = shapes[i]
            entries = index(outer * reduced * middle * inner)
            if not sum_of_squares(vector(addresses[i, 1], entries), ZERO, entries) < np.inf:
                return False
    run(units, addresses, shapes, advance(addresses, rates), report)
    return True
