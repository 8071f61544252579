"""GroupMCP in a diagonal metric: the global minimiser, by one scalar equation per group and one comparison.

For one group with metric D = Diag(d) > 0 the objective is 1/2 <x, D x> - <b, x> + scale MCP(weight, gamma)(||x||).
With lam = scale weight, c = scale/gamma and reach = gamma weight, its stationary points are

- 0, if ||b|| <= lam;
- x = rho q(rho), q(rho) = b / (rho (d - c) + lam), with rho = ||x|| <= reach a root of ||q(rho)|| = 1;
- b/d, if ||b/d|| > reach, where the penalty is flat.

The denominators rho d + c (reach - rho) are positive up to the reach *in every metric*, d <= c included.  There
h(rho) = 1/||q(rho)|| is concave (h''/h = -3 Var(a), a = (d - c) / (rho (d - c) + lam) weighted by q^2), and the least
value of the objective on the sphere of radius rho falls while h < 1 and rises while h > 1.  So among the first two
kinds there is at most one minimum: 0 if ||b|| <= lam, else the first root of h = 1, which Newton's method reaches from
below, without passing it, from the better of two tangents; where a tangent falls or leaves the reach there is none.
Against b/d, its objective is the lower one if and only if <b/d, q(rho)> <= reach: the difference of the two is
c/2 (reach - rho) (<b/d, q(rho)> - reach), in which nothing cancels.
"""

from __future__ import annotations

from types import ModuleType

from ramda_theory.arrays import Array, is_host
from ramda_theory.regularizers.grouped import norms_of
from ramda_theory.regularizers.grouping import Groups
from ramda_theory.regularizers.scalar_equation import TINY, power_of_two, refuse_extremes, squares_in_range

MAX_UPDATES = 60  # Newton halves its error while two roots are close, and is quadratic from then on
DEVICE_UPDATES = 20
LAST_STEP = 2.0**-50


def group_mcp_minimizer(
    xp: ModuleType,
    groups: Groups,
    b: Array,
    diag: Array,
    threshold: Array | float,
    bend: Array | float,
    reach: Array | float,
    max_updates: int | None = None,
) -> Array:
    """argmin_x 1/2 <x, diag x> - <b, x> + sum_g scale MCP_g(||x_g||) for float64 ``b`` and ``diag`` > 0, any ``diag``.

    Parameters
    ----------
    xp : module
    groups : Groups
    b, diag : array
    threshold, bend, reach : float or array of one number per group
        scale weight_g, scale/gamma and gamma weight_g > 0.
    max_updates : int, optional
        Newton updates: by default as many as needed, at most 60, and 20 on devices, which are not asked.

    Raises
    ------
    ValueError
        If entries are too large, or ``diag`` too small, for float64 (checked on host arrays only).
    RuntimeError
        If a root that decides is not reached (checked on host arrays only).
    """
    host = is_host(b)
    if host and squares_in_range(xp, groups, b, diag, threshold) is not None:
        shift, zero = _shifts(xp, groups, b, diag, threshold, bend, reach, host, max_updates)
    else:
        if host:
            refuse_extremes(xp, b=b, diag=diag, threshold=threshold)
        # x, b and d in units of their group, as in `group_lasso_norms`.
        beta, delta = power_of_two(xp, groups.max(xp, xp.abs(b))), power_of_two(xp, groups.max(xp, diag))
        scaled = b / groups.spread(xp, beta), diag / groups.spread(xp, delta)
        units = threshold / beta, bend / delta, reach * (delta / beta)
        shift, zero = _shifts(xp, groups, *scaled, *units, host, max_updates)
        shift = shift * delta
    return xp.where(groups.spread(xp, zero), 0.0, b / (diag + groups.spread(xp, shift)))


def _shifts(
    xp: ModuleType,
    groups: Groups,
    b: Array,
    diag: Array,
    threshold: Array | float,
    bend: Array | float,
    reach: Array | float,
    host: bool,
    max_updates: int | None,
) -> tuple[Array, Array]:
    """lam/rho - c of every group, 0 where b/d is lower, and which groups are zero: x = b / (d + shift) elsewhere."""
    b_sq = b * b
    size = xp.sqrt(groups.total(xp, b_sq))
    one, none = xp.ones_like(size), xp.zeros_like(size)
    threshold, bend, reach = threshold * one, bend * one, reach * one
    zero = size <= threshold
    inverse, free = 1.0 / diag, b / diag
    far = norms_of(xp, groups, free)
    tilt = 1.0 - inverse * groups.spread(xp, bend)

    def sums(rho: Array) -> tuple[Array, Array]:
        """S = ||q||^2 and M = sum q^2 a, all in units of d."""
        shifted = groups.spread(xp, rho) + inverse * groups.spread(xp, threshold - bend * rho)
        terms = free / shifted
        terms = terms * terms
        return groups.total(xp, terms), groups.total(xp, terms * (tilt / shifted))

    def newton(rho: Array) -> tuple[Array, Array]:
        """(1 - h)/h' = (sqrt(S) - 1) S / M, and whether h falls."""
        s, m = sums(rho)
        falls = m <= 0
        return xp.where(falls, none, (xp.sqrt(s) - 1.0) * s / xp.where(falls, one, m + TINY)), falls

    # The tangent at 0 says at once where h falls throughout; the other one is good where lam hardly matters.
    slope = groups.total(xp, b_sq * (diag - groups.spread(xp, bend)))
    missed = slope <= 0
    rho = xp.where(missed, none, (size - threshold) * size**2 / xp.where(missed, one, slope + TINY))
    end = xp.where(zero, one, xp.minimum(far, reach))
    step, falls = newton(end)
    rho = xp.where(~falls & (end + step > rho), end + step, rho)

    updates = max_updates or (MAX_UPDATES if host else DEVICE_UPDATES)
    moving = ~zero
    for _ in range(updates):
        missed = missed | (rho > reach)
        rho = xp.where(zero | missed, reach, rho)  # a harmless place
        step, falls = newton(rho)
        missed = missed | (falls & ~zero)
        moving = (step > LAST_STEP * rho) & ~(zero | missed)
        rho = xp.where(moving, rho + step, rho)
        if host and not bool(xp.any(moving)):
            break
    # Rounding alone can miss the root where ||b/d|| is within the reach: then it is at the reach.
    missed = (missed | (rho > reach)) & ~zero
    rho = xp.where(zero, none, xp.where(missed, reach, rho))
    q = free / (groups.spread(xp, rho) + inverse * groups.spread(xp, threshold - bend * rho) + TINY)
    flat = (far > reach) & (missed | (groups.total(xp, free * q) > reach))
    if host and bool(xp.any(moving & ~flat)):
        raise RuntimeError(f"the GroupMCP scalar equation did not settle within max_updates={updates}")
    zero = zero & ~flat
    curved = xp.maximum(threshold / xp.where(rho == 0, one, rho) - bend, none)
    return xp.where(flat | missed, none, curved), zero
