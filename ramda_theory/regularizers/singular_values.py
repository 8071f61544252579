"""Singular values of one matrix: decompositions that pass NaN on, and soft-thresholding by the cheapest safe route."""

from __future__ import annotations

import math
from types import ModuleType

from ramda_theory.arrays import Array, is_host, to_float64

GRAM_LIMIT = 1e-3
"""Thresholds above this fraction of ||z|| go through the Gram matrix, whose error there is 1e-13 ||z||."""


def eigh(xp: ModuleType, square: Array) -> tuple[Array, Array]:
    """Eigenvalues of a symmetric matrix, smallest first, and its eigenvectors.

    Where rows differ by ten orders of magnitude and more, LAPACK's divide and conquer can give up in float32, with an
    error or with NaN (looked for on hosts only); float64 is taken then.
    """
    try:
        values, vectors = xp.linalg.eigh(square)
        if square.dtype == xp.float64 or not is_host(square):
            return values, vectors
        if bool(xp.all(xp.isfinite(values))) and bool(xp.all(xp.isfinite(vectors))):
            return values, vectors
    except (ValueError, RuntimeError) as error:  # NumPy's and torch's LinAlgError
        if square.dtype == xp.float64 or not type(error).__name__.endswith("LinAlgError"):
            raise
    values, vectors = xp.linalg.eigh(to_float64(xp, square))
    return xp.astype(values, square.dtype), xp.astype(vectors, square.dtype)


def svdvals(xp: ModuleType, matrix: Array) -> Array:
    """Singular values, largest first (none for an empty matrix)."""
    if not math.prod(matrix.shape):
        return xp.zeros(0, dtype=matrix.dtype)
    finite = xp.all(xp.isfinite(matrix))
    return xp.where(finite, xp.linalg.svdvals(xp.where(finite, matrix, xp.zeros_like(matrix))), xp.nan)


def svd(xp: ModuleType, matrix: Array) -> tuple[Array, Array, Array]:
    """Thin SVD, all NaN if the matrix is not finite (where LAPACK would raise)."""
    finite = xp.all(xp.isfinite(matrix))
    u, s, vh = xp.linalg.svd(xp.where(finite, matrix, xp.zeros_like(matrix)), full_matrices=False)
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
