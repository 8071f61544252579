"""Rows and columns of a matrix whose metric is at its floor, where the nuclear norm's solution is nearly explicit.

Inputs that are always zero, and units that never fire, have no gradient: P is eps in their columns or rows, many orders
of magnitude below the rest, and no single penalty of ADMM suits both.  But there the nuclear norm decides: with
Z = U S V^T on the other columns and rows, stationarity for idle columns D of metric p reads, to first order in p,

    p U S V_D^T + alpha lambda U V_D^T = U U^T b_D,   so   Z_D = U diag(s / (p s + alpha lambda)) U^T b_D,

and likewise for rows.  That is where ADMM begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ramda_theory.arrays import Array, to_float64
from ramda_theory.regularizers import NuclearNorm
from ramda_theory.subproblem.problem import Subproblem

FLOOR = 2e-3
"""Rows and columns are idle if no entry of their metric is above this share of its largest."""

Start = tuple[Array, Array]
"""A point Z and a dual in d psi(Z), of the shape of the data."""


def idle_start(problem: Subproblem, start: Start | None, solve: Callable[[Subproblem], Start]) -> Start | None:
    """Where to begin with idle rows or columns; None where there are none, or psi is no nuclear norm.

    Parameters
    ----------
    problem : Subproblem
    start : (point, dual), optional
        That of the solution of a problem nearby, good but for its idle part.  Without it the problem without its idle
        part is solved first.
    solve : callable
        Subproblem -> (point, dual).
    """
    psi, xp, alpha = problem.regularizer.as_matrices, problem.xp, problem.weight_sum
    if psi is None or not alpha * psi.weight > 0:
        return None
    metric = to_float64(xp, psi.matrix(problem.metric))
    level = FLOOR * float(xp.max(metric))
    rows, columns = ([int(i) for i in np.flatnonzero(_host(xp.max(metric, axis=a) > level))] for a in (1, 0))
    if (len(rows), len(columns)) == tuple(metric.shape) or not rows or not columns:
        return None
    rows, columns = (xp.asarray(each, dtype=xp.int64, device=metric.device) for each in (rows, columns))

    def live(matrix: Array) -> Array:
        return matrix[rows][:, columns]

    b = -psi.matrix(problem.linear)
    if start is None:
        anchor, grad_sum, part = (live(psi.matrix(a)) for a in (problem.anchor, problem.grad_sum, problem.metric))
        z_live, y_live = solve(Subproblem(anchor, grad_sum, part, alpha, NuclearNorm(psi.weight)))
    else:
        z_live, y_live = (live(psi.matrix(a)) for a in start)
    u, s, vh = xp.linalg.svd(to_float64(xp, z_live), full_matrices=False)
    kept = int(xp.count_nonzero(s > 1e-6 * s[0])) if float(s[0]) > 0 else 0
    u, s, v = u[:, :kept], s[:kept], vh[:kept].T
    lam = alpha * psi.weight
    # U and V continued to all rows and columns, at the mean metric of each.
    left, right = (xp.zeros((n, kept), dtype=s.dtype, device=s.device) for n in metric.shape)
    left = left + (b[:, columns] @ v) / (xp.mean(metric[:, columns], axis=1)[:, None] * s + lam)
    right = right + (b[rows].T @ u) / (xp.mean(metric[rows], axis=0)[:, None] * s + lam)
    left[rows], right[columns] = u, v
    z = (left * s) @ right.T
    y = (b - metric * z) / alpha
    corner = xp.zeros_like(z, dtype=xp.bool)
    mask = corner[rows]
    mask[:, columns] = True
    corner[rows] = mask
    full_z, full_y = xp.zeros_like(z), xp.zeros_like(z)
    patch_z, patch_y = full_z[rows], full_y[rows]
    patch_z[:, columns], patch_y[:, columns] = to_float64(xp, z_live), to_float64(xp, y_live)
    full_z[rows], full_y[rows] = patch_z, patch_y
    z, y = xp.where(corner, full_z, z), xp.where(corner, full_y, y)
    return psi.array(z, problem.anchor), psi.array(y, problem.anchor)


def _host(flags: Any) -> np.ndarray:
    return np.asarray(flags.cpu() if hasattr(flags, "cpu") else flags)
