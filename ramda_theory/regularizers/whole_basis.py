"""Soft-thresholding of singular values from a whole basis that nearly consists of singular vectors, by products."""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType

import numpy as np

from ramda_theory.arrays import Array
from ramda_theory.regularizers.singular_values import eigh

NEAR = 2.0
"""Rows below this many thresholds are turned until they are orthogonal to one another."""
RESOLVED = 10.0
"""So are those below this many times the square root of the precision, of the longest: of these a Gram matrix in that
precision knows little."""
HOPELESS = 0.25
"""Of what the error would be if all rows were longer than the threshold: above the slack it is not looked at closer."""
SAMPLE = 16
"""Random vectors that tell the norm of a matrix."""


def shrink_in_basis(
    xp: ModuleType, z: Array, q: Array, threshold: float, slack: float, *, guess: bool = False
) -> tuple[Array, int, float] | None:
    """Soft-threshold the singular values of ``z`` to second order in how far ``q`` is from singular vectors.

    With orthonormal Q the rows of C = Q^T Z are as long as the singular values, s, and nearly orthogonal.  With their
    inner products S = C C^T, and with K the rows longer than the threshold tau, L the others,

        X = Q H C,   H = [1 A^T]^T G [1 A^T],   A_lk = S_lk / (s_k^2 - s_l^2),
        G_kk = 1 - tau / s_k,   G_kj = tau S_kj / (s_k s_j (s_k + s_j))

    which has the rank of G (the derivatives of invariant subspaces, and of 1 / sqrt by Daleckii and Krein).  Rows near
    the threshold and below are turned until they are orthogonal first.

    Parameters
    ----------
    xp : module
        Namespace of the arrays.
    z : array, shape (n, columns), n <= columns
    q : array, shape (n, n)
        Orthonormal.
    threshold : float
        tau > 0.
    slack : float
        Error that may be left.
    guess : bool
        Whether ``q`` comes from another matrix, so that it is looked early whether it is near at all.

    Returns
    -------
    (x, rank, error) or None
        ``error`` is about ||X - exact||, from what the next order is.  None if it is above the slack.
    """
    c = q.T @ z
    some = random_vectors(xp, q)
    skew = threshold * float(xp.linalg.vector_norm(q.T @ (q @ some) - some))
    if not skew <= slack or (guess and not HOPELESS * second_order(xp, c, threshold, some) <= slack):
        return None
    inner = c @ c.T
    diagonal = xp.arange(inner.shape[0])
    square = xp.asarray(inner[diagonal, diagonal], copy=True)
    resolved = RESOLVED * float(xp.finfo(z.dtype).eps * xp.max(square)) ** 0.5
    low = xp.nonzero(square < max(NEAR * threshold, resolved) ** 2)[0]
    turn = inner[:0, :0]
    if len(low):
        square[low], turn = eigh(xp, inner[low][:, low])
        inner[low] = turn.T @ inner[low]
        inner[:, low] = inner[:, low] @ turn
    s = xp.sqrt(xp.clip(square, min=0.0))
    long = xp.clip(s, min=threshold)
    inner[diagonal, diagonal] = 0.0
    inner /= long
    inner /= long[:, None]
    h = inner * (threshold / (s[:, None] + long))
    shares = 1.0 - threshold / long
    h[diagonal, diagonal] = shares
    below = xp.nonzero(s <= threshold)[0]
    if len(below):
        # The angles by which the vectors above the threshold lean towards those below; none of these among themselves.
        apart = xp.clip(s**2 - square[below][:, None], min=1e-20 * threshold**2)
        lean = inner[below] * (threshold * long / apart)
        lean[:, below] = 0.0
        rows = lean @ h
        h[below], h[:, below] = rows, rows.T
        h[below[:, None], below] = rows @ lean.T
    first_order = h @ (s[:, None] * some) - (shares * s)[:, None] * some
    error = skew + float(xp.linalg.vector_norm(inner @ first_order))
    if not error <= slack:
        return None
    if len(low):
        h[low] = turn @ h[low]
        h[:, low] = h[:, low] @ turn.T
    # X = Z - Q (I - H) C: what Q is off from orthonormal counts for tau, not for all of Z.
    h[diagonal, diagonal] -= 1.0
    x = (q @ h) @ c
    x += z
    return x, len(s) - len(below), error


def second_order(xp: ModuleType, c: Array, threshold: float, some: Array) -> float:
    """tau ||K^2||, K the cosines of the rows of ``c`` that are longer than the threshold tau."""
    length = xp.linalg.vector_norm(c, axis=1)[:, None]
    long = xp.clip(length, min=threshold)
    for _ in range(2):
        some = c @ (c.T @ (some / long)) / long - (length / long) ** 2 * some
    return threshold * float(xp.linalg.vector_norm(some))


def random_vectors(xp: ModuleType, like: Array) -> Array:
    """Some columns whose product with any matrix of as many columns is about as large as the matrix."""
    return xp.asarray(normal(like.shape[1]), dtype=like.dtype, device=like.device)


@lru_cache(maxsize=64)
def normal(rows: int) -> np.ndarray:
    """The same numbers every time."""
    numbers: np.ndarray = np.random.default_rng(0).standard_normal((rows, SAMPLE)) / SAMPLE**0.5
    return numbers
