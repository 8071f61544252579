"""Rows and columns of a matrix whose metric is at its floor, where the nuclear norm's solution is nearly explicit.

Inputs that are always zero, and units that never fire, have no gradient: P is eps in their columns or rows, many orders
of magnitude below the rest, and no single penalty of ADMM suits both.  But there the nuclear norm decides: with
Z = U S V^T on the other columns and rows, stationarity for idle columns D of metric p reads, to first order in p,

    p U S V_D^T + alpha lambda U V_D^T = U U^T b_D,   so   Z_D = U diag(s / (p s + alpha lambda)) U^T b_D,

and likewise for rows.  That is where ADMM begins.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from ramda_theory.arrays import Array, to_float64
from ramda_theory.regularizers import NuclearNorm
from ramda_theory.subproblem.problem import Subproblem

FLOOR = 2e-3
"""Rows and columns are idle if no entry of their metric is above this share of its largest."""

Start = tuple[Array, Array]
"""A point Z and a dual in d psi(Z), of the shape of the data."""


def idle_start(
    problem: Subproblem, start: Start | None, solve: Callable[[Subproblem], Start], basis: Array | None = None
) -> Start | None:
    """Where to begin with idle rows or columns; None where there are none, or psi is no nuclear norm.

    Parameters
    ----------
    problem : Subproblem
    start : (point, dual), optional
        That of the solution of a problem nearby, good but for its idle part.  Without it the problem without its idle
        part is solved first.
    solve : callable
        Subproblem -> (point, dual).
    basis : array, optional
        Has no fewer columns than the rank of the point in ``start``, whose decomposition it speeds up.
    """
    psi, xp, alpha = problem.regularizer.as_matrices, problem.xp, problem.weight_sum
    if psi is None or not alpha * psi.weight > 0:
        return None
    metric = psi.matrix(problem.metric)
    most = [_host(xp.max(metric, axis=axis)) for axis in (1, 0)]
    level = FLOOR * float(most[0].max())
    rows, columns = (_positions(xp, each > level, metric) for each in most)
    still_rows, still_columns = (_positions(xp, each <= level, metric) for each in most)
    if not (len(still_rows) or len(still_columns)) or not len(rows) or not len(columns):
        return None

    def live(matrix: Array) -> Array:
        return matrix[rows][:, columns]

    if start is None:
        base, sums, part = (live(psi.matrix(a)) for a in (problem.anchor, problem.grad_sum, problem.metric))
        z_live, y_live = solve(Subproblem(base, sums, part, alpha, NuclearNorm(psi.weight)))
        z, y = (xp.zeros(metric.shape, dtype=a.dtype, device=metric.device) for a in (z_live, y_live))
        for whole, a in ((z, z_live), (y, y_live)):
            patch = whole[rows]
            patch[:, columns] = a
            whole[rows] = patch
    else:
        z, y = (xp.asarray(psi.matrix(a), copy=True) for a in start)
        z_live = live(z)
    u, s, v = factors(xp, z_live, 0 if basis is None else basis.shape[1])
    lam = alpha * psi.weight

    # U and V continued to idle rows and columns, at the mean metric of each.
    anchor, grad_sum = psi.matrix(problem.anchor), psi.matrix(problem.grad_sum)
    left, right = (xp.zeros((n, s.shape[0]), dtype=s.dtype, device=s.device) for n in metric.shape)
    left[rows], right[columns] = u, v
    idle_metric = to_float64(xp, metric[still_rows]), to_float64(xp, metric[:, still_columns])
    idle_image = (
        idle_metric[0] * anchor[still_rows] - grad_sum[still_rows],
        idle_metric[1] * anchor[:, still_columns] - grad_sum[:, still_columns],
    )
    left[still_rows] = (idle_image[0][:, columns] @ v) / (xp.mean(idle_metric[0], axis=1)[:, None] * s + lam)
    right[still_columns] = (idle_image[1][rows].T @ u) / (xp.mean(idle_metric[1], axis=0)[:, None] * s + lam)
    idle = (left[still_rows] * s) @ right.T, (left * s) @ right[still_columns].T
    dual = tuple((b - p * part) / alpha for b, p, part in zip(idle_image, idle_metric, idle, strict=True))
    z[still_rows], y[still_rows] = xp.astype(idle[0], z.dtype), xp.astype(dual[0], y.dtype)
    z[:, still_columns], y[:, still_columns] = xp.astype(idle[1], z.dtype), xp.astype(dual[1], y.dtype)
    return psi.array(z, problem.anchor), psi.array(y, problem.anchor)


def factors(xp: ModuleType, matrix: Array, columns: int) -> tuple[Array, Array, Array]:
    """U, s, V of what counts of a matrix, in float64.

    Parameters
    ----------
    xp : module
        Namespace of the arrays.
    matrix : array, shape (rows, columns)
    columns : int
        > 0: the rank is known to be no larger, and is found from products with as many random vectors.
    """
    rows, others = matrix.shape
    if 0 < 2 * columns < min(rows, others):
        sketch = np.random.default_rng(0).standard_normal((others, columns))
        q, _ = xp.linalg.qr(to_float64(xp, matrix @ xp.asarray(sketch, dtype=matrix.dtype, device=matrix.device)))
        small, s, vh = xp.linalg.svd(q.T @ to_float64(xp, matrix), full_matrices=False)
        u = q @ small
    else:
        u, s, vh = xp.linalg.svd(to_float64(xp, matrix), full_matrices=False)
    kept = int(xp.count_nonzero(s > 1e-6 * s[0])) if float(s[0]) > 0 else 0
    return u[:, :kept], s[:kept], vh[:kept].T


def _positions(xp: ModuleType, flags: np.ndarray, like: Array) -> Array:
    return xp.asarray(np.flatnonzero(flags), dtype=xp.int64, device=like.device)


def _host(values: Any) -> np.ndarray:
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)
