"""Low-rank factorisation of a matrix of which some entries are observed."""

from __future__ import annotations

import numpy as np

from ramda_theory.problems.base import Problem
from ramda_theory.problems.checks import check_size, fraction, integer
from ramda_theory.problems.planted import orthonormal
from ramda_theory.regularizers import GroupLasso, Regularizer


class Factorisation(Problem):
    """f(w) = 1/(2N) sum over N observed (i, j) of ((U V^T)_ij - M_ij)^2, nonconvex.

    w of shape (m + n, k) stacks U (m x k) on V (n x k), so that ``GroupLasso(weight, dims=(0,))`` has one group per
    component: a zero column removes the component from U and V alike.  grad f has no Lipschitz constant.

    Parameters
    ----------
    M : array, shape (m, n)
        The matrix; entries that are not observed are not looked at.
    observed : boolean array, shape (m, n)
        Which entries are the samples, at least one.
    regularizer : Regularizer
        psi.
    initial : array, shape (m + n, k)
        Where runs start.  0 is a stationary point.
    name : str
        Short name.
    """

    def __init__(
        self,
        M: np.ndarray,
        observed: np.ndarray,
        regularizer: Regularizer,
        initial: np.ndarray,
        name: str = "factorisation",
    ) -> None:
        M, observed = np.asarray(M, dtype=np.float64), np.asarray(observed)
        if M.ndim != 2 or observed.shape != M.shape or observed.dtype != bool:
            raise ValueError(
                f"observed must be a boolean array of the shape of M {M.shape}, got {observed.dtype} {observed.shape}"
            )
        initial = np.asarray(initial, dtype=np.float64)
        if initial.ndim != 2 or len(initial) != sum(M.shape):
            raise ValueError(f"initial must have {sum(M.shape)} rows (those of U and V), got shape {initial.shape}")
        self._rows, self._columns = np.nonzero(observed)
        self._entries = M[observed]
        if not self._entries.size:
            raise ValueError("M must have observed entries, got none")
        check_size("M", self._entries)
        self._cells = np.flatnonzero(observed)
        self._shape = M.shape
        super().__init__(name, regularizer, initial, self._entries.size, False, None)

    def value(self, w: np.ndarray) -> float:
        residual = self._residual(w)
        return float(residual @ residual) / (2 * residual.size)

    def value_and_gradient(self, w: np.ndarray) -> tuple[float, np.ndarray]:
        residual = self._residual(w)
        value = float(residual @ residual) / (2 * residual.size)
        return value, self._pull_back(w, self._cells, residual)

    def batch_gradient(self, w: np.ndarray, batch: np.ndarray) -> np.ndarray:
        left, right = w[: self._shape[0]], w[self._shape[0] :]
        products = left.take(self._rows.take(batch), axis=0)
        products *= right.take(self._columns.take(batch), axis=0)
        residual = products.sum(axis=1)
        residual -= self._entries.take(batch)
        return self._pull_back(w, self._cells.take(batch), residual)

    def _residual(self, w: np.ndarray) -> np.ndarray:
        m = self._shape[0]
        residual: np.ndarray = (w[:m] @ w[m:].T).ravel()[self._cells] - self._entries
        return residual

    def _pull_back(self, w: np.ndarray, cells: np.ndarray, residual: np.ndarray) -> np.ndarray:
        """(R V, R^T U) / batch size, with the residuals in the matrix R, repeated ones added."""
        m, n = self._shape
        sparse = np.bincount(cells, weights=residual / len(cells), minlength=m * n).reshape(m, n)
        gradient = np.empty_like(w)
        np.matmul(sparse, w[m:], out=gradient[:m])
        np.matmul(sparse.T, w[:m], out=gradient[m:])
        return gradient


def factorisation(
    weight: float | None = None,
    seed: int = 0,
    rows: int = 30,
    columns: int = 20,
    components: int = 6,
    rank: int = 2,
    observed: float = 0.6,
) -> Factorisation:
    """Factorise a random matrix of low rank into more components than it needs; see `Factorisation`.

    M has random singular vectors and the singular values sqrt(rows * columns) (1, 1/2, 1/4, ...), without noise; were
    they equal, any rotation of the components would serve as well and there would be no solution to converge to.  The
    start is random too, standard normal entries divided by sqrt(components): a zero start would be stationary.

    Parameters
    ----------
    weight : float, optional
        lambda >= 0 of ``GroupLasso(weight, dims=(0,))``, default 2e-3.
    seed : int
        Of the matrix, of the observed entries and of the start.
    rows, columns : int
        Shape of the matrix.
    components : int
        Columns of w.
    rank : int
        Rank of the matrix.
    observed : float
        Fraction in (0, 1] of the entries that are observed (rounded up to a whole number).

    Returns
    -------
    Factorisation
        w of shape (rows + columns, components).

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of its range.
    """
    regularizer = GroupLasso(2e-3 if weight is None else weight, dims=(0,))
    rng = np.random.default_rng(integer("seed", seed, 0))
    rows, columns = integer("rows", rows, 1), integer("columns", columns, 1)
    components = integer("components", components, 1)
    rank = integer("rank", rank, 1, min(rows, columns), "the smaller side of the matrix")
    count = int(np.ceil(fraction("observed", observed) * rows * columns))
    values = np.sqrt(rows * columns) * 0.5 ** np.arange(rank)
    M = (orthonormal(rng, rows, rank) * values) @ orthonormal(rng, columns, rank).T
    mask = np.zeros(rows * columns, dtype=bool)
    mask[rng.choice(mask.size, integer("observed entries", count, 1), replace=False)] = True
    initial = rng.standard_normal((rows + columns, components)) / np.sqrt(components)
    return Factorisation(M, mask.reshape(M.shape), regularizer, initial)
