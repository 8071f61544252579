"""Singular value thresholding by matrix products alone: polar factor and matrix sign by minimax polynomials.

With Z = U S V^T, threshold tau, Q = U V^T its polar factor, H = Q^T Z = V S V^T and Pi = (I + sign(H - tau I)) / 2,

    argmin_X 1/2 ||X - Z||^2 + tau ||X||_* = (Z - tau Q) Pi,    rank = trace Pi.

Q and the sign come from X <- p(X) with odd polynomials p, each of which brings an interval [l, u] of singular values as
close to 1 as its degree allows; the next one starts from the interval that it leaves.  A composition of such minimax
polynomials is the best of all compositions of its degrees (arXiv:2505.16932, Theorem 3.1).  Everything is batched over
leading axes, waits for nothing, and runs at the speed of matrix products, which is what accelerators do best.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from ramda_theory.arrays import Array, namespace

Quintic = tuple[float, float, float]
"""a, b, c of p(x) = a x + b x^3 + c x^5."""

TAYLOR: Quintic = (15 / 8, -10 / 8, 3 / 8)
"""p(1) = 1 with two derivatives 0: where a minimax polynomial goes as its interval shrinks to 1."""
CLOSE = 1e-3
"""Intervals within this of 1 take `TAYLOR`, whose error there is 2.5 CLOSE^3."""
CUSHION = 0.03
"""Least ratio of the ends of an interval that a polynomial is made for; what is smaller it multiplies by about 7."""
ROOM = 1.01
"""Singular values are expected up to this far above the interval, where rounding may put them."""


@cache
def minimax_quintic(low: float, high: float) -> tuple[Quintic, float]:
    """The odd quintic nearest to 1 on [low, high], and its distance from 1 there.

    By Remez' exchange: p(low) = 1 - E, p(q) = 1 + E, p(r) = 1 - E, p(high) = 1 + E, and q < r the extrema of p.

    Parameters
    ----------
    low, high : float
        0 < low < high.

    Returns
    -------
    coefficients : tuple of float
        a, b, c of a x + b x^3 + c x^5.
    error : float
        E.
    """
    q, r = low + (high - low) * 0.25, low + (high - low) * 0.75
    a = b = c = error = 0.0
    for _ in range(100):
        points = np.array([low, q, r, high])
        matrix = np.stack([points, points**3, points**5, np.array([1.0, -1.0, 1.0, -1.0])], axis=1)
        a, b, c, new_error = (float(x) for x in np.linalg.solve(matrix, np.ones(4)))
        settled = abs(new_error - error) <= 1e-14
        error = new_error
        root = math.sqrt(max(9.0 * b * b - 20.0 * a * c, 0.0))
        q, r = sorted(math.sqrt(max((-3.0 * b + sign * root) / (10.0 * c), 0.0)) for sign in (-1.0, 1.0))
        if settled:
            break
    return (a, b, c), error


@cache
def polynomials(low: float, accuracy: float = 1e-7) -> tuple[Quintic, ...]:
    """Odd quintics whose composition brings [low, 1] to within ``accuracy`` of 1.

    Parameters
    ----------
    low : float
        In (0, 1).
    accuracy : float
        > 0.

    Returns
    -------
    tuple of (a, b, c)
        To be applied from the first on; they map [0, low] into [0, 1 + accuracy].
    """
    found: list[Quintic] = []
    high, error = 1.0, 1.0
    while error > accuracy:
        if max(1.0 - low, high - 1.0) <= CLOSE:
            return (*found, TAYLOR)
        # Where p is close to 0 inside the interval, rounding could change signs: a cushion keeps it away.
        (a, b, c), error = minimax_quintic(max(low, CUSHION * high), high)
        room = ROOM if error > 0.1 else 1.0
        a, b, c = a / room, b / room**3, c / room**5
        found.append((a, b, c))
        error = max(error, 1.0 - low * (a + low**2 * (b + low**2 * c)))
        low, high = 1.0 - error, 1.0 + min(error, high)
    return tuple(found)


def apply_polynomials(xp: Any, x: Array, steps: tuple[Quintic, ...]) -> Array:
    """x <- a x + b x x^T x + c x x^T x x^T x for every step: odd polynomials of the singular values, by three products.

    Parameters
    ----------
    xp : module
        Namespace of ``x``.
    x : array, shape (..., rows, columns)
        Best with no more rows than columns.
    steps : tuple of (a, b, c)

    Returns
    -------
    array of the shape of ``x``
    """
    for a, b, c in steps:
        gram = x @ xp.matrix_transpose(x)
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x


def shrink_by_products(z: Array, threshold: Array | float) -> tuple[Array, Array]:
    """Soft-threshold singular values by products: the proximal map of threshold ||.||_*, and the rank it leaves.

    Parameters
    ----------
    z : array, shape (..., rows, columns)
        NumPy or torch, float32 or float64.
    threshold : float or array, shape (...)
        tau > 0.  The smallest ratio of tau to the size of its matrix is waited for: it decides how many products.

    Returns
    -------
    x : array
        Like ``z``; off by about 1e-5 tau in float32, 1e-12 tau in float64.
    rank : array, shape (...)
        trace Pi, a whole number unless a singular value is within about that of tau.
    """
    xp = namespace(z=z)
    rows, columns = z.shape[-2:]
    short = z if rows <= columns else xp.matrix_transpose(z)
    rounding = float(xp.finfo(z.dtype).eps)
    tau = xp.asarray(threshold, dtype=z.dtype, device=z.device)[..., None, None] + xp.zeros_like(short[..., :1, :1])
    gram = short @ xp.matrix_transpose(short)
    # The Schatten 4-norm, at least the largest singular value and closer to it than the Euclidean norm.
    bound = xp.sqrt(xp.linalg.vector_norm(gram, axis=(-2, -1), keepdims=True)) + tau
    level = tau / bound
    ratio = float(xp.min(level))
    scaled = short / bound
    polar = apply_polynomials(xp, scaled, polynomials(0.99 * ratio, 4.0 * rounding))
    # H = Z Q^T, symmetric with the singular values of Z as eigenvalues; those above tau are kept.
    h = scaled @ xp.matrix_transpose(polar)
    identity = xp.eye(h.shape[-1], dtype=z.dtype, device=z.device)
    h = 0.5 * (h + xp.matrix_transpose(h)) - level * identity
    resolution = max(32.0 * rounding, 8.0 * rounding / ratio) * ratio
    sign = apply_polynomials(xp, h, polynomials(resolution, 4.0 * rounding))
    kept = 0.5 * (identity + 0.5 * (sign + xp.matrix_transpose(sign)))
    x = bound * (kept @ (scaled - level * polar))
    rank = xp.sum(xp.linalg.diagonal(kept), axis=-1)
    return (x if rows <= columns else xp.matrix_transpose(x)), rank
