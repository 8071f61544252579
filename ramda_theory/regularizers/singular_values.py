"""Singular values of one matrix: decompositions that pass NaN on, and soft-thresholding by the cheapest safe route."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from types import ModuleType

from ramda_theory.arrays import Array, is_host, to_float64

GRAM_LIMIT = 1e-3
"""Thresholds above this fraction of ||z|| go through the Gram matrix, whose error there is 1e-13 ||z||."""


def eigh(xp: ModuleType, square: Array) -> tuple[Array, Array]:
    """Eigenvalues of a symmetric matrix, smallest first, and its eigenvectors."""
    values, vectors = insist(xp, xp.linalg.eigh, square)
    return values, vectors


def insist(xp: ModuleType, decompose: Callable[[Array], tuple[Array, ...]], matrix: Array) -> tuple[Array, ...]:
    """A decomposition of a finite matrix, in float64 where LAPACK gives up in float32.

    Divide and conquer does, with an error or with NaN, where rows differ by ten orders of magnitude and more.
    """
    try:
        parts = decompose(matrix)
        if not is_host(matrix) or all(math.isfinite(float(xp.sum(part))) for part in parts):
            return parts
    except (ValueError, RuntimeError) as error:  # NumPy's and torch's LinAlgError
        if matrix.dtype == xp.float64 or not type(error).__name__.endswith("LinAlgError"):
            raise
    return tuple(xp.astype(part, matrix.dtype) for part in decompose(to_float64(xp, matrix)))


def svdvals(xp: ModuleType, matrix: Array) -> Array:
    """Singular values, largest first (none for an empty matrix)."""
    if not math.prod(matrix.shape):
        return xp.zeros(0, dtype=matrix.dtype)
    finite = xp.all(xp.isfinite(matrix))
    (s,) = insist(xp, lambda z: (xp.linalg.svdvals(z),), xp.where(finite, matrix, xp.zeros_like(matrix)))
    return xp.where(finite, s, xp.nan)


def svd(xp: ModuleType, matrix: Array) -> tuple[Array, Array, Array]:
    """Thin SVD, all NaN if the matrix is not finite (where LAPACK would raise)."""
    finite = xp.all(xp.isfinite(matrix))
    u, s, vh = insist(xp, partial(xp.linalg.svd, full_matrices=False), xp.where(finite, matrix, xp.zeros_like(matrix)))
    return xp.where(finite, u, xp.nan), xp.where(finite, s, xp.nan), xp.where(finite, vh, xp.nan)


def project_out(xp: ModuleType, left: Array, right: Array, g: Array) -> Array:
    """(I - left left^T) g (I - right right^T): the normal part of g at a matrix with these singular vectors."""
    g = g - left @ (left.T @ g)
    return g - (g @ right) @ right.T


def shrink_singular_values(xp: ModuleType, z: Array, threshold: Array | float) -> tuple[Array, Array]:
    """Soft-threshold the singular values of ``z``; also the number that stay positive.

    By an SVD, or, where the threshold is well above what the Gram matrix loses, by the eigenvectors Q of the smaller
    of z z^T and z^T z: the result is Q diag(max(1 - threshold/sigma, 0)) Q^T z, at a third of the cost.
    """
    if not math.prod(z.shape):
        return z, xp.asarray(0)
    if is_host(z) and bool(threshold > GRAM_LIMIT * xp.linalg.vector_norm(z)):
        short = z.shape[0] <= z.shape[1]
        values, vectors = eigh(xp, z @ z.T if short else z.T @ z)
        kept = int(xp.count_nonzero(values > threshold**2))
        q = vectors[:, vectors.shape[1] - kept :]
        factor = 1.0 - threshold / xp.sqrt(values[values.shape[0] - kept :])
        return ((q * factor) @ (q.T @ z) if short else (z @ q) @ (factor[:, None] * q.T)), xp.asarray(kept)
    u, s, vh = svd(xp, z)
    left = xp.where(s <= threshold, xp.zeros_like(s), s - threshold)
    return (u * left) @ vh, xp.count_nonzero(left)
