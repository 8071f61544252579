"""Minimisers of one entry, and the update of a group's norm: as `ramda_theory.kernels.cpu.solves`, on tiles.

With b = diag base - linear, an entry minimises 1/2 diag x^2 - b x + scale phi(x), phi being |x|, MCP or SCAD.  A group
minimises 1/2 <x, D x> - <b, x> + lam ||x||: it is 0 if ||b|| <= lam, else x = b / (d + lam / rho), where rho > 0 is the
root of N(rho) = ||b / (rho d + lam)|| = 1 (Deleu & Bengio 2021).  ``k`` are the numbers of an entry's solve, as
`ramda_theory.kernels.triton.numbers.advance` leaves them.
"""

from __future__ import annotations

import triton
import triton.language as tl

NO_PSI, L1, MCP, SCAD, COLUMNS, ADJACENT = (tl.constexpr(rule) for rule in range(6))
"""What is solved: entries without psi or with one of three, or groups that lie across or along memory."""

SETTLED = tl.constexpr(1e-2)
"""A relative change of rho by a cubic update that leaves a relative error of at most its cube: 1e-6."""
ROUNDING = tl.constexpr(1e-6)
"""|N - 1| that sums in float32 leave."""


@triton.jit
def soft(b, threshold):
    """sign(b) max(|b| - threshold, 0); a NaN stays one."""
    return tl.where(b > threshold, b - threshold, tl.where(b < -threshold, b + threshold, b * 0.0))


@triton.jit
def entry(base, linear, diag, k, RULE: tl.constexpr):
    """The minimiser of one entry.

    ``k``: scale weight, and for "l1" scale l2; else the weight, gamma or a, and scale.
    """
    b = diag * base - linear
    if RULE == NO_PSI:
        x = base - linear / diag  # exactly base where linear is 0
    elif RULE == L1:
        x = soft(b, k[0]) / (diag + k[1])
    elif RULE == MCP:
        x = mcp(b, diag, k)
    else:
        x = scad(b, diag, k)
    return x


@triton.jit
def mcp(b, diag, k):
    """As `ramda_theory.regularizers.separable.mcp_minimizer`."""
    threshold, weight, gamma, scale = k[0], k[1], k[2], k[3]
    size = tl.abs(b)
    curvature = diag - scale / gamma
    convex = curvature > 0
    curved = (size - threshold) / tl.where(convex, curvature, 1.0)
    zero_up_to = tl.where(convex, threshold, weight * tl.sqrt(scale * gamma * diag))
    curved_up_to = tl.where(convex, diag * (gamma * weight), 0.0)
    x = tl.where(size <= curved_up_to, curved, size / diag)
    x = tl.where(size <= zero_up_to, 0.0, x)
    return tl.where(b < 0, -x, x)


@triton.jit
def scad(b, diag, k):
    """As `SCAD` in `ramda_theory.regularizers.separable`."""
    threshold, weight, a, scale = k[0], k[1], k[2], k[3]
    size = tl.abs(b)
    curvature = diag - scale / (a - 1.0)
    convex = curvature > 0
    near = tl.where(size > threshold, size - threshold, size * 0.0) / diag
    falling = (size - threshold * (a / (a - 1.0))) / tl.where(convex, curvature, 1.0)
    reach = diag * (a + 1.0)
    flat_from = tl.where(scale >= reach, weight * tl.sqrt(scale * reach), 0.5 * weight * (scale + reach))
    near_up_to = tl.where(convex, weight * (diag + scale), flat_from)
    falling_up_to = tl.where(convex, a * weight * diag, 0.0)
    x = tl.where(size <= near_up_to, near, tl.where(size <= falling_up_to, falling, size / diag))
    return tl.where((b < 0) & (x != 0), -x, x)


@triton.jit
def moments(b, d, rho, lam):
    """||b||^2 and s_0, s_1, s_2 of every column of a tile at the norms ``rho`` of the columns' groups."""
    reciprocal = 1.0 / (rho[None, :] * d + lam)
    r = b * reciprocal
    t = d * reciprocal
    first = r * r
    second = first * t
    return tl.sum(b * b, 0), tl.sum(first, 0), tl.sum(second, 0), tl.sum(second * t, 0)


@triton.jit
def next_norm(rho, b_sq, s0, s1, s2, lam):
    """A better norm of every group, and which of them are not settled.

    With q = b / (rho d + lam) and s_k = sum q^2 (d / (rho d + lam))^k, h = 1/N - 1 is concave and increasing in rho,
    and its Newton update is (N - 1) s_0 / s_1.  Halley's, which knows h'' too, divides it by
    1 - 3/2 (s_2 s_0 - s_1^2) / (s_0 s_1) times itself: the error is cubed.
    """
    norm = tl.sqrt(s0)
    step = (norm - 1.0) * s0 / s1
    bend = 1.0 - 1.5 * (s2 * s0 - s1 * s1) / (s0 * s1) * step
    change = step / tl.where(bend > 0.5, bend, 0.5)
    better = rho + change
    settled = (tl.abs(change) <= better * SETTLED) | (tl.abs(norm - 1.0) <= ROUNDING)
    zero = tl.sqrt(b_sq) <= lam
    # From where float32 sees no way: again from 0; if there is none from there either, the data are not finite.
    astray = (better > 0) == 0
    again = tl.where(rho == 0, float("nan"), 0.0)
    is_open = tl.where(astray, (rho != 0).to(tl.int32), (settled == 0).to(tl.int32)) > 0
    return tl.where(zero, 0.0, tl.where(astray, again, better)), is_open & (zero == 0)
