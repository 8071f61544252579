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

from types import ModuleType

from ramda_theory.arrays import Array, is_host
from ramda_theory.regularizers.grouping import Groups

MAX_UPDATES = 15
LAST_STEP = 2.0**-27
TINY = 2.0**-1022  # keeps 0/0 out of groups that are zero throughout


def group_lasso_minimizer(
    xp: ModuleType, groups: Groups, b: Array, diag: Array, threshold: Array | float, max_updates: int = MAX_UPDATES
) -> Array:
    """argmin_x 1/2 <x, diag x> - <b, x> + sum_g threshold_g ||x_g||, for float64 ``b`` and ``diag`` > 0.

    Squares of ``b`` must stay in float64's range: sizes from 1e-150 to 1e150, which all float32 data have.

    Raises
    ------
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
    b_sq = b * b
    size = xp.sqrt(groups.total(xp, b_sq))
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

    far = xp.where(zero, one, xp.sqrt(groups.total(xp, free * free)))
    at_far = far + newton_step(far)
    rho = xp.where(zero, one, xp.where(at_far > at_zero, at_far, at_zero))

    host = is_host(b)
    updates, moving = 0, True
    while moving and updates < max_updates:
        step = newton_step(rho)
        # Past the root a step is negative: rounding, or the stand-in of a zero group.
        rho = xp.where(step > 0, rho + step, rho)
        updates += 1
        moving = not host or bool((step > LAST_STEP * rho).any())
    if host and moving:
        raise RuntimeError(f"the group LASSO scalar equation did not settle within max_updates={max_updates}")
    return xp.where(zero, xp.zeros_like(rho), rho), zero, updates
