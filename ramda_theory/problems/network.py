"""A small network on the data of a teacher that looks at few of its inputs."""

from __future__ import annotations

import numpy as np

from ramda_theory.problems.base import Problem
from ramda_theory.problems.checks import integer, matrix, vector
from ramda_theory.problems.regression import spectral_square
from ramda_theory.regularizers import GroupLasso, Regularizer

LARGEST_BEND = 4.0 / (3.0 * np.sqrt(3.0))
"""max |tanh''|."""


class TanhNetwork(Problem):
    """f(w) = 1/(2n) sum_i (sum_j tanh(<x_i, w_j>) - y_i)^2, nonconvex; w of shape (inputs, hidden units).

    A two-layer network whose second layer is fixed, all ones, and whose units have no bias: the first layer is all
    there is to learn, and ``GroupLasso(weight, dims=(1,))``, one group per input feature, covers the whole variable.

    Parameters
    ----------
    features : array, shape (n, p)
        One row x_i per sample.
    targets : array, shape (n,)
        y_i.
    regularizer : Regularizer
        psi.
    initial : array, shape (p, hidden units)
        Where runs start.
    name : str
        Short name.

    Notes
    -----
    With h units and lambda_max that of X^T X / n, grad f is Lipschitz with
    lambda_max (h + max|tanh''| max_i (h + |y_i|)): the Gauss-Newton part of the Hessian is at most h X^T X / n and
    residuals are at most h + |y_i|.
    """

    def __init__(
        self,
        features: np.ndarray,
        targets: np.ndarray,
        regularizer: Regularizer,
        initial: np.ndarray,
        name: str = "tanh-network",
    ) -> None:
        self._features = matrix("features", features)
        n, p = self._features.shape
        self._targets = vector("targets", targets, n, "one per row of features")
        initial = matrix("initial", initial)
        if len(initial) != p:
            raise ValueError(f"initial must have {p} rows (one per feature), got shape {initial.shape}")
        hidden = initial.shape[1]
        largest = hidden + float(np.max(np.abs(self._targets)))
        lipschitz = spectral_square(self._features) * (hidden + LARGEST_BEND * largest)
        super().__init__(name, regularizer, initial, n, False, lipschitz)

    def value(self, w: np.ndarray) -> float:
        residual: np.ndarray = np.tanh(self._features @ w).sum(axis=1) - self._targets
        return float(residual @ residual) / (2 * residual.size)

    def value_and_gradient(self, w: np.ndarray) -> tuple[float, np.ndarray]:
        return network_gradient(self._features, self._targets, w)

    def batch_gradient(self, w: np.ndarray, batch: np.ndarray) -> np.ndarray:
        return network_gradient(self._features.take(batch, axis=0), self._targets.take(batch), w)[1]


def network_gradient(features: np.ndarray, targets: np.ndarray, w: np.ndarray) -> tuple[float, np.ndarray]:
    """f and X^T (r (1 - tanh(X w)^2)) / n with the residuals r."""
    units = features @ w
    np.tanh(units, out=units)
    residual = np.add.reduce(units, axis=1)
    residual -= targets
    units *= units
    np.subtract(1.0, units, out=units)
    units *= residual[:, None]
    gradient = features.T @ units
    gradient /= len(residual)
    return float(residual @ residual) / (2 * len(residual)), gradient


def teacher(
    weight: float | None = None,
    seed: int = 0,
    samples: int = 500,
    features: int = 20,
    relevant: int = 4,
    hidden: int = 3,
) -> TanhNetwork:
    """Learn a random network of which only some inputs matter from its own outputs; see `TanhNetwork`.

    Inputs are standard normal.  The teacher's weights are normal with deviation 1.5/sqrt(relevant) on its relevant
    inputs and zero on the others; the student starts at normal weights of deviation 0.1.  A stationary point of
    F need not use exactly the teacher's inputs, and which one a run reaches depends on the run.

    Parameters
    ----------
    weight : float, optional
        lambda >= 0 of ``GroupLasso(weight, dims=(1,))``, default 5e-3.
    seed : int
        Of the inputs, of the teacher and of the start.
    samples, features : int
        Number of samples and of inputs.
    relevant : int
        Number of inputs the teacher looks at, at most ``features``.
    hidden : int
        Number of hidden units, of teacher and student alike.

    Returns
    -------
    TanhNetwork
        w of shape (features, hidden).

    Raises
    ------
    TypeError, ValueError
        If an argument is of another kind or out of its range.
    """
    regularizer = GroupLasso(5e-3 if weight is None else weight, dims=(1,))
    rng = np.random.default_rng(integer("seed", seed, 0))
    samples, features = integer("samples", samples, 1), integer("features", features, 1)
    hidden = integer("hidden", hidden, 1)
    relevant = integer("relevant", relevant, 1, features, "the number of features")
    x = rng.standard_normal((samples, features))
    true = np.zeros((features, hidden))
    true[rng.choice(features, relevant, replace=False)] = rng.normal(0.0, 1.5 / np.sqrt(relevant), (relevant, hidden))
    initial = rng.normal(0.0, 0.1, (features, hidden))
    return TanhNetwork(x, np.tanh(x @ true).sum(axis=1), regularizer, initial, name="teacher")
