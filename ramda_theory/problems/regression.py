"""Least squares."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ramda_theory.arrays import integers
from ramda_theory.problems.base import Problem
from ramda_theory.problems.checks import matrix, vector
from ramda_theory.regularizers import Regularizer


class LeastSquares(Problem):
    """f(w) = 1/(2n) ||A w - y||^2, with w read as a vector in C order whatever its shape.

    Parameters
    ----------
    A : array, shape (n, p)
        One row per sample.
    y : array, shape (n,)
        Observations.
    regularizer : Regularizer
        psi, on arrays of shape ``shape``.
    shape : tuple of int, optional
        Shape of w, p entries in all.  Default: a vector.
    name : str
        Short name.
    known_point : array of shape ``shape``, optional
        A solution known by construction.
    """

    def __init__(
        self,
        A: np.ndarray,
        y: np.ndarray,
        regularizer: Regularizer,
        shape: tuple[int, ...] | None = None,
        name: str = "least-squares",
        known_point: np.ndarray | None = None,
    ) -> None:
        self._A = matrix("A", A)
        n, p = self._A.shape
        self._y = vector("y", y, n, "one per row of A")
        shape = (p,) if shape is None else integers("shape", shape)
        if math.prod(shape) != p or min(shape) < 1:
            raise ValueError(f"shape must have as many entries as A has columns ({p}), got {shape}")
        super().__init__(name, regularizer, np.zeros(shape), n, True, spectral_square(self._A))
        if known_point is not None:
            if np.shape(known_point) != shape:
                raise ValueError(f"known_point must have the shape of w, {shape}, got {np.shape(known_point)}")
            self.known_point = np.array(known_point, dtype=np.float64)
            self.known_point.flags.writeable = False

    def value(self, w: np.ndarray) -> float:
        residual = self._A @ w.ravel() - self._y
        return float(residual @ residual) / (2 * len(residual))

    def value_and_gradient(self, w: np.ndarray) -> tuple[float, np.ndarray]:
        residual = self._A @ w.ravel() - self._y
        n = len(residual)
        return float(residual @ residual) / (2 * n), (residual @ self._A / n).reshape(w.shape)

    def batch_gradient(self, w: np.ndarray, batch: np.ndarray) -> np.ndarray:
        rows = self._A.take(batch, axis=0)
        residual = rows @ w.ravel()
        residual -= self._y.take(batch)
        residual /= len(batch)
        gradient: np.ndarray = (residual @ rows).reshape(w.shape)
        return gradient

    def hessian(self, w: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """d -> A^T A d / n."""
        return lambda d: ((self._A @ d.ravel()) @ self._A / len(self._y)).reshape(d.shape)

    def hessian_matrix(self, w: np.ndarray) -> np.ndarray:
        """A^T A / n."""
        matrix: np.ndarray = self._A.T @ self._A / len(self._y)
        return matrix

    def dual_value(self, w: np.ndarray, scale: float) -> float:
        """-mean(v^2/2 + v y) with v = scale (A w - y)."""
        v = scale * (self._A @ w.ravel() - self._y)
        return -float(np.mean(v * (0.5 * v + self._y)))

    def block_lipschitz(self, entries: np.ndarray) -> float:
        """||A_B||^2 / n."""
        return float(np.linalg.norm(self._A[:, entries], 2)) ** 2 / len(self._y) * (1.0 + 1e-12)

    def self_concordance(self, entries: np.ndarray) -> float:
        """0: f is a quadratic."""
        return 0.0


def spectral_square(features: np.ndarray) -> float:
    """Largest eigenvalue of A^T A / n, rounded up by 1e-12 so that it bounds computed gradients too."""
    norm = float(np.linalg.norm(features, 2))
    if norm == 0:
        raise ValueError("the data matrix must not be zero")
    square = norm * norm / len(features) * (1.0 + 1e-12)
    if square < np.finfo(np.float64).tiny:
        raise ValueError(f"the data matrix must be scaled up: its spectral norm, {norm:g}, underflows when squared")
    return square


def least_squares(
    A: np.ndarray, y: np.ndarray, regularizer: Regularizer, shape: tuple[int, ...] | None = None
) -> LeastSquares:
    """1/(2n) ||A w - y||^2 + psi(w) on data of your own; see `LeastSquares`.

    Parameters
    ----------
    A : array, shape (n, p)
        One row per sample.
    y : array, shape (n,)
        Observations.
    regularizer : Regularizer
        psi, on arrays of shape ``shape``.
    shape : tuple of int, optional
        Shape of w, p entries in all, read as a vector in C order.  Default: a vector.

    Returns
    -------
    LeastSquares
        w of shape ``shape``, 0 at the start.

    Raises
    ------
    TypeError, ValueError
        If the data are no real numbers, hold NaN or Inf or overflow when squared, or if their shapes do not fit.
    """
    return LeastSquares(A, y, regularizer, shape)
