"""Minimisers of one entry, and the norm of a group: the solves of the compiled loops.

With b = diag base - linear, an entry minimises 1/2 diag x^2 - b x + scale phi(x), phi being |x|, MCP or SCAD.  A group
minimises 1/2 <x, D x> - <b, x> + lam ||x||: it is 0 if ||b|| <= lam, else x = b / (d + lam / rho), where rho > 0 is the
root of N(rho) = ||b / (rho d + lam)|| = 1 (Deleu & Bengio 2021).
"""

from __future__ import annotations

import numba as nb
import numpy as np

from ramda_theory.kernels.cpu.arithmetic import f32, fast, sums

SETTLED = 1e-6
"""The relative error of rho that a cubic update may leave, by `next_norm`'s estimate."""
AMPLIFIED = 2e-3
"""rho relative to the length on which N changes; below it, float32 sums would lose three digits of rho."""
ROUNDING = 4e-7
"""|N - 1| that sums in float32 leave."""
BORDER = 1e-5
"""As close to its threshold, ||b||^2 in float32 does not say on which side a group is."""
KNOWN, OPEN, UNCLEAR = 0, 1, 2
"""What is known of a norm: all that float32 can tell; not yet; float32 cannot tell."""
MAX_UPDATES = 60
"""Newton updates for one group in float64 at most; a dozen are usual at most."""


# -- entries: (base, linear, diag, k) -> x -----------------------------------------------------------------------------


@nb.njit(**fast)
def no_psi(base, linear, diag, k):
    """Base - linear / diag: exactly base where linear is 0."""
    return base - linear / diag


@nb.njit(**fast)
def soft(b, threshold):
    """sign(b) max(|b| - threshold, 0); a NaN stays one."""
    return b - threshold if b > threshold else b + threshold if b < -threshold else b * f32(0)


@nb.njit(**fast)
def l1(base, linear, diag, k):
    """k: scale weight and scale l2."""
    return soft(diag * base - linear, k[0]) / (diag + k[1])


@nb.njit(**fast)
def mcp(base, linear, diag, k):
    """k: scale weight, weight, gamma, scale; as `ramda_theory.regularizers.separable.mcp_minimizer`."""
    threshold, weight, gamma, scale = k[0], k[1], k[2], k[3]
    b = diag * base - linear
    size = abs(b)
    curvature = diag - scale / gamma
    convex = curvature > f32(0)
    curved = (size - threshold) / (curvature if convex else f32(1))
    zero_up_to = threshold if convex else weight * np.sqrt(scale * gamma * diag)
    curved_up_to = diag * (gamma * weight) if convex else f32(0)
    x = curved if size <= curved_up_to else size / diag
    x = f32(0) if size <= zero_up_to else x
    return -x if b < f32(0) else x


@nb.njit(**fast)
def scad(base, linear, diag, k):
    """k: scale weight, weight, a, scale; as `SCAD` in `ramda_theory.regularizers.separable`."""
    threshold, weight, a, scale = k[0], k[1], k[2], k[3]
    b = diag * base - linear
    size = abs(b)
    curvature = diag - scale / (a - f32(1))
    convex = curvature > f32(0)
    near = (size - threshold if size > threshold else size * f32(0)) / diag
    falling = (size - threshold * (a / (a - f32(1)))) / (curvature if convex else f32(1))
    reach = diag * (a + f32(1))
    beats_zero = weight * np.sqrt(scale * reach)
    beats_near = f32(0.5) * weight * (scale + reach)
    flat_from = beats_zero if scale >= reach else beats_near
    near_up_to = weight * (diag + scale) if convex else flat_from
    falling_up_to = a * weight * diag if convex else f32(0)
    x = near if size <= near_up_to else falling if size <= falling_up_to else size / diag
    return -x if (b < f32(0)) & (x != f32(0)) else x


# -- groups -----------------------------------------------------------------------------------------------------------


@nb.njit(**fast)
def next_norm(rho, b_sq, s0, s1, s2, lam):
    """A better norm of a group, and whether it is `KNOWN`, `OPEN` or `UNCLEAR` in float32.

    With q = b / (rho d + lam) and s_k = sum q^2 (d / (rho d + lam))^k, h = 1/N - 1 is concave and increasing in rho,
    and its Newton update is (N - 1) s_0 / s_1.  Halley's, which knows h'' too, divides it by
    1 - 3/2 (s_2 s_0 - s_1^2) / (s_0 s_1) times itself: a change leaves an error of at most change^3 / length^2, the
    length being the least rho + lam / d_i.  That is at least rho, and s_1 / s_2 is a mean of them.

    Parameters
    ----------
    rho : float
        >= 0; from the step before.
    b_sq : float
        ||b||^2.
    s0, s1, s2 : float
        The sums at ``rho``.
    lam : float
    """
    if b_sq <= lam * lam * (1.0 - BORDER):
        # Squares of small numbers must not have vanished.
        return 0.0, KNOWN if b_sq > 1e-30 or lam > 1e-12 else UNCLEAR
    if b_sq <= lam * lam * (1.0 + BORDER):
        return rho, UNCLEAR
    if not (s0 < np.inf and b_sq < np.inf and s1 > 0.0 and 0.0 < s2 < np.inf):
        return rho, UNCLEAR
    norm = np.sqrt(s0)
    step = (norm - 1.0) * s0 / s1
    bend = 1.0 - 1.5 * (s2 * s0 - s1 * s1) / (s0 * s1) * step
    change = step / (bend if bend > 0.5 else 0.5)
    better = rho + change
    if not better > 0.0:
        return 0.0, OPEN
    # Close to its threshold a group changes by more than it is, and half of the digits give all of the next ones.
    length = max(better, 0.1 * s1 / s2)
    if abs(change) * (change / length) ** 2 > SETTLED * better and abs(norm - 1.0) > ROUNDING:
        return better, OPEN
    return better, KNOWN if better * s1 >= AMPLIFIED * norm else UNCLEAR


@nb.njit(**sums)
def exact_norm(b, d, lam):
    """The norm of one group in float64, from the better of two tangents; NaN for such data or on failure."""
    top = 0.0
    for j in range(b.size):
        top = max(top, abs(np.float64(b[j]))) if b[j] == b[j] else np.nan
    if not (top > 0.0 and top < np.inf):
        return top - top  # 0, or NaN
    unit = 1.0 / top  # so that squares stay in range; rho is in the same unit
    lam *= unit
    size_sq, slope, far_sq = 0.0, 0.0, 0.0
    for j in range(b.size):
        bj, dj = b[j] * unit, np.float64(d[j])
        size_sq += bj * bj
        slope += bj * bj * dj
        far_sq += (bj / dj) * (bj / dj)
    size, far = np.sqrt(size_sq), np.sqrt(far_sq)
    if size <= lam:
        return 0.0
    if not far < np.inf:
        return np.nan
    rho = far
    for update in range(MAX_UPDATES):
        s, m = 0.0, 0.0
        for j in range(b.size):
            dj = np.float64(d[j])
            reciprocal = 1.0 / (rho * dj + lam)
            q = b[j] * unit * reciprocal
            s += q * q
            m += q * q * dj * reciprocal
        step = (np.sqrt(s) - 1.0) * s / m
        if update == 0:
            rho = max((size - lam) * size_sq / slope, far + step)
        elif step <= 1e-9 * rho:
            return rho * top
        else:
            rho += step
    return np.nan


@nb.njit(**fast)
def unclear(b_sq, lam):
    """Whether ||b||^2 in float32 does not say on which side of its threshold a group is, or by how much."""
    # Zeros throughout are usual, where an input never comes; squares of small numbers may have vanished.
    vanished = b_sq <= 1e-30 and lam <= 1e-12
    return vanished or not b_sq < np.inf or abs(b_sq - lam * lam) <= BORDER * lam * lam


@nb.njit(**sums)
def exact_size(b):
    """||b|| in float64, whatever its range; NaN for such data."""
    top = 0.0
    for j in range(b.size):
        top = max(top, abs(np.float64(b[j]))) if b[j] == b[j] else np.nan
    if not (top > 0.0 and top < np.inf):
        return top - top  # 0, or NaN
    b_sq = 0.0
    for j in range(b.size):
        each = b[j] / top
        b_sq += each * each
    return np.sqrt(b_sq) * top
