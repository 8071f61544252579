"""The regularizers once more, from their published formulas: loops over entries and groups, no shared code.

`pieces` lists the flat indices of every group, `value` is psi(w), `threshold` the largest ||b_piece|| for which the
minimiser of 1/2 d x^2 - <b, x> + scale psi(x) is zero there.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ramda_theory.regularizers import L1, MCP, SCAD, ElasticNet, GroupLasso, GroupMCP, NuclearNorm, SparseGroupLasso


@lru_cache(maxsize=256)
def pieces(regularizer, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Flat (row-major) indices of the entries of each group; one group per entry for sums over entries."""
    if isinstance(regularizer, NuclearNorm):
        return [np.arange(int(np.prod(shape)))]
    dims = getattr(regularizer, "dims", ())
    along = {dim % len(shape) for dim in dims}
    groups: dict[tuple[int, ...], list[int]] = {}
    for flat, index in enumerate(np.ndindex(*shape)):
        key = tuple(i for axis, i in enumerate(index) if axis not in along)
        if getattr(regularizer, "labels", None) is not None:
            key = (regularizer.labels[flat],)
        groups.setdefault(key, []).append(flat)
    return [np.array(groups[key]) for key in sorted(groups)]


def matricised(regularizer: NuclearNorm, w: np.ndarray) -> np.ndarray:
    """The matrix whose (i, j) entry collects the row axes into i and the column axes into j."""
    rank = w.ndim
    rows = [axis % rank for axis in regularizer.row_dims]
    columns = [axis % rank for axis in regularizer.column_dims]
    shape = tuple(int(np.prod([w.shape[axis] for axis in axes])) for axes in (rows, columns))
    matrix = np.zeros(shape)
    for index in np.ndindex(*w.shape):
        i = j = 0
        for axis in rows:
            i = i * w.shape[axis] + index[axis]
        for axis in columns:
            j = j * w.shape[axis] + index[axis]
        matrix[i, j] = w[index]
    return matrix


def unmatricised(regularizer: NuclearNorm, matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array whose matricisation is ``matrix``."""
    out = np.zeros(shape)
    where = matricised(regularizer, np.arange(out.size, dtype=float).reshape(shape)).astype(int)
    out.ravel()[where.ravel()] = matrix.ravel()
    return out


def mcp(t: float, lam: float, gamma: float) -> float:
    return lam * t - t * t / (2 * gamma) if t <= gamma * lam else gamma * lam * lam / 2


def scad(t: float, lam: float, a: float) -> float:
    if t <= lam:
        return lam * t
    if t <= a * lam:
        return (2 * a * lam * t - t * t - lam * lam) / (2 * (a - 1))
    return lam * lam * (a + 1) / 2


def value(regularizer, w: np.ndarray) -> float:
    """psi(w), one entry or group at a time."""
    lam, flat = regularizer.weight, np.abs(w.ravel())
    if isinstance(regularizer, L1):
        return lam * sum(flat)
    if isinstance(regularizer, ElasticNet):
        return lam * sum(flat) + regularizer.l2 / 2 * sum(flat * flat)
    if isinstance(regularizer, MCP):
        return sum(mcp(t, lam, regularizer.gamma) for t in flat)
    if isinstance(regularizer, SCAD):
        return sum(scad(t, lam, regularizer.a) for t in flat)
    if isinstance(regularizer, NuclearNorm):
        matrix = matricised(regularizer, w)
        return lam * float(np.sum(np.linalg.svd(matrix, compute_uv=False))) if matrix.size else 0.0
    scaled = regularizer.size_scaled
    norms = [(np.sqrt(len(g)) if scaled else 1.0, float(np.linalg.norm(flat[g]))) for g in pieces(regularizer, w.shape)]
    if isinstance(regularizer, GroupLasso):
        return lam * sum(root * size for root, size in norms)
    if isinstance(regularizer, SparseGroupLasso):
        ratio = regularizer.l1_ratio
        return lam * (ratio * sum(flat) + (1 - ratio) * sum(root * size for root, size in norms))
    assert isinstance(regularizer, GroupMCP)
    return sum(mcp(size, lam * root, regularizer.gamma) for root, size in norms)


def threshold(regularizer, size: int, diag: float, scale: float) -> float:
    """||b|| at which the minimiser in the metric ``diag`` leaves zero, for a piece of ``size`` entries."""
    lam = regularizer.weight * (np.sqrt(size) if getattr(regularizer, "size_scaled", False) else 1.0)
    if isinstance(regularizer, (MCP, GroupMCP)) and diag * regularizer.gamma <= scale:
        # 0 ties with b/diag: scale gamma lam^2 / 2 = b^2 / (2 diag)
        return float(np.sqrt(scale * regularizer.gamma * diag) * lam)
    if isinstance(regularizer, SCAD) and diag * (regularizer.a + 1) <= scale:
        # 0 ties with b/diag: scale (a + 1) lam^2 / 2 = b^2 / (2 diag)
        return float(np.sqrt(scale * (regularizer.a + 1) * diag) * lam)
    return scale * lam
