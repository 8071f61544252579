"""Groups whose norms have an MCP: one group after another in float64, by Newton's method on its scalar equation.

A group minimises 1/2 <x, D x> - <b, x> + alpha MCP(lam_g, gamma)(||x||).  Its minimiser is 0, or b / (d + shift): with
shift 0 beyond the reach gamma lam_g, where the penalty is flat, and lam / rho - alpha/gamma within, rho = ||x|| being
the first root of N(rho) = ||b / (rho (d - alpha/gamma) + lam)|| = 1.  `ramda_theory.regularizers.group_mcp_equation`
says why there is no other candidate, whatever the metric, and how two of them compare.
"""

from __future__ import annotations

import numba as nb
import numpy as np

from ramda_theory.kernels.cpu.arithmetic import f32, fast, index, sums

MAX_UPDATES = 60
"""Newton halves its error while two roots are close, and is quadratic from then on."""
LAST_STEP = 1e-9
"""A relative change of rho after which float32 cannot tell the difference."""


@nb.njit(**sums)
def mcp_sums(b, d, unit, rho, lam, bend):
    """||q||^2, sum q^2 a and <b/d, q> at rho, with r = rho (d - bend) + lam, q = b / r and a = (d - bend) / r."""
    s, m, along = 0.0, 0.0, 0.0
    rest = lam - rho * bend
    for j in range(b.size):
        bj, dj = b[j] * unit, np.float64(d[j])
        reciprocal = 1.0 / (rho * dj + rest)
        q = bj * reciprocal
        s += q * q
        m += q * q * ((dj - bend) * reciprocal)
        along += bj / dj * q
    return s, m, along


@nb.njit(**sums)
def mcp_shift(b, d, guess, lam, bend, reach):
    """The norm of a group, and the shift that gives its minimiser; NaN for such data, or where Newton does not settle.

    Parameters
    ----------
    b, d : float32 arrays
        Of the group.
    guess : float
        Its norm in the step before.
    lam, bend, reach : float
        alpha lam_g, alpha/gamma and gamma lam_g.
    """
    top = 0.0
    for j in range(b.size):
        top = max(top, abs(np.float64(b[j]))) if b[j] == b[j] else np.nan
    if not (top > 0.0 and top < np.inf):
        return top - top, f32(np.inf) if top == 0.0 else f32(np.nan)
    unit = 1.0 / top  # so that squares stay in range; rho and the reach are in the same unit
    lam, reach, guess = lam * unit, reach * unit, guess * unit
    size_sq, slope, far_sq, energy = 0.0, 0.0, 0.0, 0.0
    for j in range(b.size):
        bj, dj = b[j] * unit, np.float64(d[j])
        free = bj / dj
        size_sq += bj * bj
        slope += bj * bj * (dj - bend)
        far_sq += free * free
        energy += bj * free
    size, far = np.sqrt(size_sq), np.sqrt(far_sq)
    if not far < np.inf:
        return np.nan, f32(np.nan)
    if size <= lam:
        if far > reach and energy > lam * reach:
            return reach * top, f32(0)
        return 0.0, f32(np.inf)

    # From the better of the tangents at 0 and at the norm of before, both of which lie above h = 1 / N.
    missed = slope <= 0.0
    rho = 0.0 if missed else (size - lam) * size_sq / slope
    along = 0.0
    if not missed:
        begin = min(guess if guess > 0.0 else far, min(far, reach))
        s, m, _ = mcp_sums(b, d, unit, begin, lam, bend)
        if m > 0.0:
            rho = max(rho, begin + (np.sqrt(s) - 1.0) * s / m)
        settled = False
        for _ in range(MAX_UPDATES):
            if rho > reach:
                missed = True
                break
            s, m, along = mcp_sums(b, d, unit, rho, lam, bend)
            if not m > 0.0:
                missed = True
                break
            step = (np.sqrt(s) - 1.0) * s / m
            if step <= LAST_STEP * rho:
                settled = True
                break
            rho += step
        if not (missed or settled) and not (far > reach and along > reach):
            return np.nan, f32(np.nan)
    if far > reach and (missed or along > reach):
        return reach * top, f32(0)
    # Rounding alone can miss the root where ||b/d|| is within the reach: then it is at the reach.
    rho = reach if missed else rho
    return rho * top, f32(max(lam / rho - bend, 0.0))


@nb.njit(**sums)
def mcp_shift_in_scalar_metric(b, diag, lam, bend, reach):
    """`mcp_shift` where d is one number: the MCP of a number, applied to ||b||."""
    top = 0.0
    for j in range(b.size):
        top = max(top, abs(np.float64(b[j]))) if b[j] == b[j] else np.nan
    if not (top > 0.0 and top < np.inf):
        return top - top, f32(np.inf) if top == 0.0 else f32(np.nan)
    size_sq = 0.0
    for j in range(b.size):
        each = b[j] / top
        size_sq += each * each
    size = np.sqrt(size_sq) * top
    if diag > bend:
        if size <= lam:
            return 0.0, f32(np.inf)
        rho = (size - lam) / (diag - bend)
        return (rho, f32(lam / rho - bend)) if rho <= reach else (reach, f32(0))
    return (0.0, f32(np.inf)) if size * size <= lam * reach * diag else (reach, f32(0))


@nb.njit(**fast)
def mcp_columns(norms, size, rows, lam, mcp, diag, metric, b, d, shift):
    """The norms of the groups of ``size`` columns of a block, and the shift of every column."""
    width = index(norms.size) * size
    own_b, own_d = np.empty(rows * size, np.float32), np.empty(rows * size if metric else index(0), np.float32)
    for k in range(index(norms.size)):
        for i in range(rows):
            for j in range(size):
                own_b[i * size + j] = b[i * width + k * size + j]
                if metric:
                    own_d[i * size + j] = d[i * width + k * size + j]
        if metric:
            norms[k], each = mcp_shift(own_b, own_d, np.float64(norms[k]), lam, mcp[0], mcp[1])
        else:
            norms[k], each = mcp_shift_in_scalar_metric(own_b, diag, lam, mcp[0], mcp[1])
        for j in range(size):
            shift[k * size + j] = each
