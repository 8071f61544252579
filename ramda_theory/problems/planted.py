"""Least squares built around a known solution: LASSO, group LASSO, low-rank and MCP regression.

Choose w*, then s in d psi(w*) with a prescribed nondegeneracy margin, then y = A w* + r with A^T r = n s.  Now
grad f(w*) = -A^T r / n = -s, so that w* is stationary for F = f + psi, and the only solution where F is strictly
convex.  The observations carry no other noise, yet the gradients of single samples do not vanish at w*.
"""

from __future__ import annotations

import numpy as np

from ramda_theory.arrays import real
from ramda_theory.problems.checks import fraction, integer
from ramda_theory.problems.regression import LeastSquares
from ramda_theory.regularizers import L1, MCP, GroupLasso, NuclearNorm, Regularizer


def lasso(
    weight: float | None = None,
    seed: int = 0,
    samples: int = 200,
    features: int = 50,
    nonzeros: int = 10,
    condition: float = 10.0,
    margin: float = 0.2,
) -> LeastSquares:
    """LASSO with a planted solution.

    Parameters
    ----------
    weight : float, optional
        lambda > 0, default 0.1.  The nonzero entries of w* have absolute values in [0.5, 1.5] whatever the weight.
    seed : int
        Of the design, of w* and of its subgradient.
    samples, features : int
        Size n x p of the design A, n >= p.  A^T A / n has eigenvalues between 1/condition and 1, evenly spaced in
        the logarithm.
    nonzeros : int
        Number of nonzero entries of w*.
    condition : float
        Condition number >= 1 of A^T A / n.
    margin : float
        Nondegeneracy margin in [0, 1] at w*; 0 is degenerate on purpose.

    Returns
    -------
    LeastSquares
        Its ``known_point`` is w*.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of its range.
    """
    weight = planted_weight(weight, 0.1)
    rng, A = design(seed, samples, features, condition)
    active = chosen(rng, features, "nonzeros", nonzeros)
    signs = np.where(active, rng.choice((-1.0, 1.0), features), 0.0)
    solution = signs * rng.uniform(0.5, 1.5, features)
    subgradient = np.where(active, weight * signs, weight * box(rng, ~active, margin))
    return planted("lasso", A, solution, subgradient, L1(weight))


def group_lasso(
    weight: float | None = None,
    seed: int = 0,
    samples: int = 200,
    groups: int = 20,
    group_size: int = 5,
    nonzeros: int = 5,
    condition: float = 10.0,
    margin: float = 0.2,
) -> LeastSquares:
    """Group LASSO with a planted solution; w of shape (groups, group_size), one group per row.

    Parameters
    ----------
    weight : float, optional
        lambda > 0, default 0.05.  The nonzero groups of w* have norms in [0.5, 1.5] sqrt(group_size).
    seed, samples
        As in `lasso`.
    groups, group_size : int
        Number of groups and entries in each, at most ``samples`` entries in all.
    nonzeros : int
        Number of nonzero groups of w*.
    condition, margin
        As in `lasso`.

    Returns
    -------
    LeastSquares
        Its ``known_point`` is w*.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of its range.
    """
    weight = planted_weight(weight, 0.05)
    shape = integer("groups", groups, 1), integer("group_size", group_size, 1)
    rng, A = design(seed, samples, shape[0] * shape[1], condition, "groups * group_size")
    active = chosen(rng, groups, "nonzeros", nonzeros)
    units = rng.standard_normal(shape)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    root = np.sqrt(group_size)
    lengths = np.where(active, rng.uniform(0.5, 1.5, groups) * root, 0.0)
    radii = weight * root * np.where(active, 1.0, np.abs(box(rng, ~active, margin)))
    regularizer = GroupLasso(weight, dims=(1,))
    return planted("group-lasso", A, lengths[:, None] * units, radii[:, None] * units, regularizer)


def low_rank(
    weight: float | None = None,
    seed: int = 0,
    samples: int = 400,
    rows: int = 20,
    columns: int = 15,
    rank: int = 3,
    condition: float = 10.0,
    margin: float = 0.2,
) -> LeastSquares:
    """Matrix regression, y_i from <A_i, w>, with a planted low-rank solution and the nuclear norm.

    w has shape (rows, columns).  With w* = U S V^T the subgradient is weight (U V^T + N), where N is orthogonal to w*
    and has the spectral norm 1 - margin.

    Parameters
    ----------
    weight : float, optional
        lambda > 0, default 0.1.  The nonzero singular values of w* lie in [1, 3].
    seed, samples
        As in `lasso`.
    rows, columns : int
        Shape of w, at most ``samples`` entries.
    rank : int
        Rank of w*.
    condition, margin
        As in `lasso`.

    Returns
    -------
    LeastSquares
        Its ``known_point`` is w*.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of its range.
    """
    weight = planted_weight(weight, 0.1)
    rows, columns = integer("rows", rows, 1), integer("columns", columns, 1)
    rng, A = design(seed, samples, rows * columns, condition, "rows * columns")
    short = min(rows, columns)
    rank = integer("rank", rank, 0, short, "the smaller side")
    left, right = orthonormal(rng, rows, short), orthonormal(rng, columns, short)
    active = np.arange(short) < rank
    values = np.where(active, rng.uniform(1.0, 3.0, short), 0.0)
    slopes = weight * np.where(active, 1.0, np.abs(box(rng, ~active, margin)))
    return planted("low-rank", A, (left * values) @ right.T, (left * slopes) @ right.T, NuclearNorm(weight))


def mcp(
    weight: float | None = None,
    seed: int = 0,
    gamma: float = 5.0,
    samples: int = 200,
    features: int = 50,
    nonzeros: int = 10,
    condition: float = 10.0,
    margin: float = 0.2,
) -> LeastSquares:
    """MCP regression with a planted strict local minimiser; F is not convex where condition > gamma.

    Half of the nonzero entries (rounded up) lie on the flat branch of MCP, at 1.2 to 2 times its breakpoint
    gamma * weight, the others on the curved one, at 0.3 to 0.8 times the breakpoint.

    Parameters
    ----------
    weight : float, optional
        lambda > 0, default 0.2.
    seed
        As in `lasso`.
    gamma : float
        Reach > 0 of MCP.
    samples, features, nonzeros, condition, margin
        As in `lasso`.

    Returns
    -------
    LeastSquares
        Its ``known_point`` is w*.

    Raises
    ------
    TypeError, ValueError
        As in `lasso`; also where the planted point is no minimiser on its manifold, because ``gamma`` is
        too small for the design.
    """
    weight = planted_weight(weight, 0.2)
    regularizer = MCP(weight, gamma)
    rng, A = design(seed, samples, features, condition)
    active = chosen(rng, features, "nonzeros", nonzeros)
    flat = chosen(rng, features, "nonzeros", (nonzeros + 1) // 2, among=active)
    signs = np.where(active, rng.choice((-1.0, 1.0), features), 0.0)
    relative = np.where(flat, rng.uniform(1.2, 2.0, features), rng.uniform(0.3, 0.8, features))
    solution = signs * relative * gamma * weight
    slopes = signs * weight * np.maximum(1.0 - relative, 0.0)
    subgradient = np.where(active, slopes, weight * box(rng, ~active, margin))
    hessian = A.T @ A / samples - np.diag(np.where(flat, 0.0, 1.0 / gamma))
    lowest = np.linalg.eigvalsh(hessian[np.ix_(active, active)])[:1]
    if np.any(lowest <= 0):
        raise ValueError(
            f"gamma must be larger (or condition smaller) for the planted point to be a minimiser, got gamma {gamma!r} "
            f"and condition {condition!r}"
        )
    return planted("mcp", A, solution, subgradient, regularizer)


def planted(
    name: str, A: np.ndarray, solution: np.ndarray, subgradient: np.ndarray, regularizer: Regularizer
) -> LeastSquares:
    """Least squares with y = A w* + r and A^T r = n s: with A = Q R, r = n Q R^{-T} s."""
    q, r = np.linalg.qr(A)
    residual = len(A) * (q @ np.linalg.solve(r.T, subgradient.ravel()))
    return LeastSquares(A, A @ solution.ravel() + residual, regularizer, solution.shape, name, known_point=solution)


def design(
    seed: int, samples: int, features: int, condition: float, what: str = "features"
) -> tuple[np.random.Generator, np.ndarray]:
    """The generator of the problem and A = sqrt(n) Q diag(sqrt(eigenvalues)) V^T with random orthonormal Q and V."""
    rng = np.random.default_rng(integer("seed", seed, 0))
    samples = integer("samples", samples, 1)
    features = integer(what, features, 1, samples, "the number of samples")
    condition = real("condition", condition, minimum=1.0)
    eigenvalues = np.geomspace(1.0, 1.0 / condition, features)
    left, right = orthonormal(rng, samples, features), orthonormal(rng, features, features)
    return rng, (left * np.sqrt(samples * eigenvalues)) @ right.T


def orthonormal(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Random orthonormal columns, uniformly distributed up to signs."""
    return np.linalg.qr(rng.standard_normal((rows, columns)))[0]


def chosen(rng: np.random.Generator, size: int, name: str, count: int, among: np.ndarray | None = None) -> np.ndarray:
    """A mask of ``size`` entries with ``count`` of them True (of those in the mask ``among``)."""
    candidates = np.arange(size) if among is None else np.flatnonzero(among)
    count = integer(name, count, 0, len(candidates), "all there are")
    mask = np.zeros(size, dtype=bool)
    mask[rng.choice(candidates, count, replace=False)] = True
    return mask


def box(rng: np.random.Generator, inactive: np.ndarray, margin: float) -> np.ndarray:
    """Numbers in [margin - 1, 1 - margin], of which an inactive one has the largest absolute value allowed."""
    bound = 1.0 - fraction("margin", margin)
    values = bound * rng.uniform(-1.0, 1.0, inactive.shape)
    values[np.flatnonzero(inactive)[:1]] = bound
    return values


def planted_weight(weight: float | None, default: float) -> float:
    """``weight``, or ``default`` for None; it must be positive for psi to plant anything."""
    return default if weight is None else real("weight", weight, minimum=0.0, strict=True)
