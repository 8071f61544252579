"""The group LASSO in a diagonal metric: one scalar equation per group, all groups together.

For one group with metric D = Diag(d) > 0 and threshold lam, the minimiser of 1/2 <x, D x> - <b, x> + lam ||x|| is 0
if ||b|| <= lam, else x = rho b / (rho d + lam) with rho = ||x|| the root of ||b / (rho d + lam)|| = 1 (Deleu & Bengio
2021).

Newton's method is run on h(rho) = 1/||b / (rho d + lam)|| - 1.  It is concave and increasing in rho, so a tangent at
*any* point crosses zero at or before the root, and from there the updates increase to the root quadratically.
The start is the better of two such tangents: at rho = 0, good when lam matters, and at rho = ||b/d||, good when it does
not.  No condition number enters: over 17 000 groups of sizes 1 to 4096, 12 updates were the most and 1 or 2 the median.

With weights p_i = q_i^2 / sum q^2, q = b / (rho d + lam), and a = d / (rho d + lam) <= 1/rho, h'' / h' is
-3 Var(a) / E(a) >= -3/rho.  An update of relative size r therefore leaves a relative error of at most 1.5 r^2, and one
of 2^-27 nothing that float64 could see: no further evaluation is needed to know that it was the last.
"""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np

from ramda_theory.arrays import Array, is_host
from ramda_theory.regularizers.grouping import Groups

MAX_UPDATES = 15
DEVICE_UPDATES = 12
"""Where nothing may be looked at: over 30 000 groups of float32 data, 11 left 2e-8 at worst and 12 left 6e-12."""
LAST_STEP = 2.0**-27
PLAIN, LARGEST = 1e50, 1e150
TINY = 2.0**-1022  # keeps 0/0 out of groups that are zero throughout


def group_lasso_minimizer(
    xp: ModuleType, groups: Groups, b: Array, diag: Array, threshold: Array | float, max_updates: int = MAX_UPDATES
) -> Array:
    """argmin_x 1/2 <x, diag x> - <b, x> + sum_g threshold_g ||x_g||, for float64 ``b`` and ``diag`` > 0.

    Right for entries of ``b``, ``diag`` and ``threshold`` of sizes from 1e-150 to 1e150, and for smaller ones of ``b``
    next to others.

    Raises
    ------
    ValueError
        If they are larger, or ``diag`` is smaller (checked on host arrays only).
    RuntimeError
        If ``max_updates`` Newton updates do not settle every group (checked on host arrays only).
    """
    rho, zero, _ = group_lasso_norms(xp, groups, b, diag, threshold, max_updates)
    shift = threshold / xp.where(zero, xp.ones_like(rho), rho)
    return xp.where(groups.spread(xp, zero), 0.0, b / (diag + groups.spread(xp, shift)))


def group_lasso_norms(
    xp: ModuleType, groups: Groups, b: Array, diag: Array, threshold: Array | float, max_updates: int = MAX_UPDATES
) -> tuple[Array, Array, int]:
    """Norms rho of the groups at the solution, which groups are zero, and the number of Newton updates made."""
    if is_host(b):
        squares = squares_in_range(xp, groups, b, diag, threshold)
        if squares is not None:
            return _newton(xp, groups, b, diag, threshold, max_updates, squares)
        refuse_extremes(xp, b=b, diag=diag, threshold=threshold)
    # x, b and d in units of their group: rho(b, d, lam) = (beta/delta) rho(b/beta, d/delta, lam/beta).
    beta, delta = power_of_two(xp, groups.max(xp, xp.abs(b))), power_of_two(xp, groups.max(xp, diag))
    scaled = b / groups.spread(xp, beta), diag / groups.spread(xp, delta)
    rho, zero, updates = _newton(xp, groups, *scaled, threshold / beta, max_updates)
    return rho * (beta / delta), zero, updates


def squares_in_range(
    xp: ModuleType, groups: Groups, b: Array, diag: Array, threshold: Array | float
) -> tuple[Array, Array] | None:
    """b^2 and ||b_g||, or None if a product of three of the numbers, or of the norms, may leave float64's range.

    Squares that vanish do no harm in a group with a norm in range.
    """
    with np.errstate(over="ignore"):
        b_sq = b * b
        size = xp.sqrt(groups.total(xp, b_sq))
    if not math.prod(b.shape):
        return b_sq, size
    if not bool((xp.max(size) <= PLAIN) & (xp.max(diag) <= PLAIN) & (xp.min(diag) >= 1 / PLAIN)):
        return None
    if not bool(xp.all(threshold <= PLAIN * xp.ones_like(size))):
        return None
    tiny = size < 1 / PLAIN
    if bool(tiny.any()) and bool((groups.spread(xp, tiny) & (b != 0)).any()):
        return None
    return b_sq, size


def refuse_extremes(xp: ModuleType, **arrays: Array | float) -> None:
    """Raise ValueError for finite entries beyond what the equation can be solved for."""
    for name, array in arrays.items():
        sizes = xp.abs(xp.asarray(array))
        if bool(xp.any(xp.isfinite(sizes) & (sizes > LARGEST))):
            raise ValueError(f"{name} must not exceed {LARGEST:g} in size, got {float(xp.max(sizes)):g}")
        if name == "diag" and bool(xp.any(sizes < 1 / LARGEST)):
            raise ValueError(f"diag must be at least {1 / LARGEST:g}, got {float(xp.min(sizes)):g}")


def power_of_two(xp: ModuleType, size: Array) -> Array:
    """The power of two below each positive finite number, 1 for any other."""
    usable = (size > 0) & xp.isfinite(size)
    power = xp.exp2(xp.floor(xp.log2(xp.where(usable, size, xp.ones_like(size)))))
    return xp.maximum(power, xp.full_like(power, TINY))


def _newton(
    xp: ModuleType,
    groups: Groups,
    b: Array,
    diag: Array,
    threshold: Array | float,
    max_updates: int,
    squares: tuple[Array, Array] | None = None,
) -> tuple[Array, Array, int]:
    """`group_lasso_norms` of numbers of moderate size: all of them if their ``squares`` come along, else the largest.

    The squares are overwritten.
    """
    plain = squares is not None
    if squares is None:
        b_sq = b * b
        size = xp.sqrt(groups.total(xp, b_sq))
    else:
        b_sq, size = squares
    zero = size <= threshold
    one = xp.ones_like(size)  # stands for the norm of a zero group until the end
    b_sq *= diag
    at_zero = (size - threshold) * size**2 / (groups.total(xp, b_sq) + TINY)
    free, lam = b / diag, groups.spread(xp, threshold * one) / diag

    def newton_step(rho: Array) -> Array:
        """-h/h' = (sqrt(S) - 1) S / M with S = sum q^2, M = sum q^2 d/(rho d + lam), q = b / (rho d + lam)."""
        shifted = groups.spread(xp, rho) + lam
        terms = free / shifted
        terms *= terms
        s = groups.total(xp, terms)
        excess = (xp.sqrt(s) - 1.0) * s  # before `terms` changes: where groups are single entries, s is no copy of it
        terms /= shifted
        return excess / (groups.total(xp, terms) + TINY)

    # ||b/d||, whose squares may overflow where the metric of a group spans more than 1e150.
    unit = one if plain else power_of_two(xp, groups.max(xp, xp.abs(free)))
    far = free if plain else free / groups.spread(xp, unit)
    far = xp.where(zero, one, unit * xp.sqrt(groups.total(xp, far * far)))
    at_far = far + newton_step(far)
    rho = xp.where(zero, one, xp.where(at_far > at_zero, at_far, at_zero))

    host = is_host(b)
    limit = max_updates if host else min(max_updates, DEVICE_UPDATES)
    updates, moving = 0, True
    while moving and updates < limit:
        step = newton_step(rho)
        # Past the root a step is negative: rounding, or the stand-in of a zero group.
        rho = xp.where(step > 0, rho + step, rho)
        updates += 1
        moving = not host or bool((step > LAST_STEP * rho).any())
    if host and moving:
        raise RuntimeError(f"the group LASSO scalar equation did not settle within max_updates={max_updates}")
    return xp.where(zero, xp.zeros_like(rho), rho), zero, updates
