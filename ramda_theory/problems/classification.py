"""Binary and multinomial logistic regression, and scikit-learn's data sets for them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ramda_theory.extras import needs
from ramda_theory.problems.base import Problem
from ramda_theory.problems.checks import matrix
from ramda_theory.problems.regression import spectral_square
from ramda_theory.regularizers import L1, GroupLasso, Regularizer


class MultinomialLogistic(Problem):
    """f(w) = mean_i [ log sum_k exp(x_i w_k) - x_i w_{y_i} ], no bias; w of shape (features, classes).

    grad f is Lipschitz with 1/2 of the largest eigenvalue of X^T X / n, as diag(p) - p p^T has eigenvalues <= 1/2.

    Parameters
    ----------
    features : array, shape (n, p)
        One row x_i per sample.
    targets : integer array, shape (n,)
        Classes 0 .. K - 1, each of which occurs.
    regularizer : Regularizer
        psi, on arrays of shape (p, K).
    name : str
        Short name.
    """

    def __init__(
        self, features: np.ndarray, targets: np.ndarray, regularizer: Regularizer, name: str = "multinomial-logistic"
    ) -> None:
        self._features = matrix("features", features)
        n, p = self._features.shape
        labels = one_label_per_row(targets, n)
        if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() < 1:
            raise ValueError("targets must be integers 0, 1, ..., at least two classes")
        classes = np.unique(labels)
        if len(classes) <= labels.max():
            raise ValueError(
                f"targets must hold every class from 0 to {labels.max()}, got {len(classes)} classes only: "
                "np.unique(targets, return_inverse=True)[1] numbers them anew"
            )
        self._onehot = np.eye(len(classes)).take(labels, axis=0)
        start = np.zeros((p, self._onehot.shape[1]))
        super().__init__(name, regularizer, start, n, True, 0.5 * spectral_square(self._features))

    def value_and_gradient(self, w: np.ndarray) -> tuple[float, np.ndarray]:
        scores = self._features @ w
        correct = np.vdot(scores, self._onehot)
        top = scores.max(axis=1)
        scores -= top[:, None]
        sums = np.exp(scores, out=scores).sum(axis=1)
        value = float(np.sum(np.log(sums) + top) - correct) / len(scores)
        scores /= sums[:, None]
        scores -= self._onehot
        return value, self._features.T @ scores / len(scores)

    def gradient(self, w: np.ndarray) -> np.ndarray:
        return logistic_gradient(self._features, self._onehot, w)

    def batch_gradient(self, w: np.ndarray, batch: np.ndarray) -> np.ndarray:
        return logistic_gradient(self._features.take(batch, axis=0), self._onehot.take(batch, axis=0), w)

    def hessian(self, w: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """d -> X^T Z / n with rows z_i = p_i * (x_i d) - p_i <p_i, x_i d>, p_i the probabilities at w."""
        probabilities = softmax(self._features @ w)

        def product(d: np.ndarray) -> np.ndarray:
            weighted = self._features @ d
            weighted *= probabilities
            weighted -= probabilities * weighted.sum(axis=1, keepdims=True)
            image: np.ndarray = self._features.T @ weighted / len(weighted)
            return image

        return product

    def hessian_matrix(self, w: np.ndarray) -> np.ndarray:
        """Blocks X^T Diag(p_k (1[k = l] - p_l)) X / n for classes k, l."""
        x, p = self._features, softmax(self._features @ w)
        (features, classes), n = w.shape, len(p)
        matrix = np.empty((features, classes, features, classes))
        for k in range(classes):
            for l in range(k + 1):
                block = (x * (p[:, k] * (float(k == l) - p[:, l]) / n)[:, None]).T @ x
                matrix[:, k, :, l] = matrix[:, l, :, k] = block
        return matrix.reshape(w.size, w.size)

    def dual_value(self, w: np.ndarray, scale: float) -> float:
        """Mean entropy of the rows of v = Y + scale (P - Y), P the probabilities at w and Y the targets."""
        v = self._onehot + scale * (softmax(self._features @ w) - self._onehot)
        return -float(np.sum(v * np.log(np.where(v > 0, v, 1.0)))) / len(v)

    def block_lipschitz(self, entries: np.ndarray) -> float:
        """||X_S||^2 / (2 n), S the features of the entries; for a single entry ||X_g||^2 / (4 n)."""
        rows = np.unique(entries // self._onehot.shape[1])
        columns = self._features[:, rows]
        square = float(np.sum(columns**2)) if len(rows) == 1 else float(np.linalg.norm(columns, 2)) ** 2
        return (0.25 if len(entries) == 1 else 0.5) * square / len(columns) * (1.0 + 1e-12)

    def self_concordance(self, entries: np.ndarray) -> float:
        """sqrt(2) max_i ||x_i,S||: the scores of a sample spread by sqrt(2) ||x_i,S|| ||u|| at most."""
        rows = np.unique(entries // self._onehot.shape[1])
        return math.sqrt(2.0) * float(np.sqrt(np.max(np.sum(self._features[:, rows] ** 2, axis=1), initial=0.0)))

    def centred(self, w: np.ndarray) -> np.ndarray:
        """Every row minus its mean: a number added to the scores of all classes does not change f."""
        centred: np.ndarray = w - w.mean(axis=1, keepdims=True)
        return centred


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities exp(z_k) / sum_k exp(z_k) of every row, in place."""
    scores -= np.maximum.reduce(scores, axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= np.add.reduce(scores, axis=1, keepdims=True)
    return scores


def logistic_gradient(features: np.ndarray, onehot: np.ndarray, w: np.ndarray) -> np.ndarray:
    """X^T (softmax(X w) - Y) / n."""
    error = softmax(features @ w)
    error -= onehot
    gradient: np.ndarray = features.T @ error
    gradient /= len(error)
    return gradient


class BinaryLogistic(Problem):
    """f(w) = mean_i log(1 + exp(-y_i <x_i, w>)) with y_i = -1 or 1, no bias; w of shape (features,).

    grad f is Lipschitz with 1/4 of the largest eigenvalue of X^T X / n.

    Parameters
    ----------
    features : array, shape (n, p)
        One row x_i per sample.
    targets : array, shape (n,)
        Two distinct values; the larger one counts as y_i = 1.
    regularizer : Regularizer
        psi, on vectors of p entries.
    name : str
        Short name.
    """

    def __init__(
        self, features: np.ndarray, targets: np.ndarray, regularizer: Regularizer, name: str = "binary-logistic"
    ) -> None:
        x = matrix("features", features)
        n, p = x.shape
        values, positive = np.unique(one_label_per_row(targets, n), return_inverse=True)
        if len(values) != 2:
            raise ValueError(f"targets must take exactly two values, got {len(values)}")
        self._signed = x * np.where(positive == 1, -1.0, 1.0)[:, None]  # rows -y_i x_i
        super().__init__(name, regularizer, np.zeros(p), n, True, 0.25 * spectral_square(x))

    def value(self, w: np.ndarray) -> float:
        return float(np.mean(np.logaddexp(0.0, self._signed @ w)))

    def value_and_gradient(self, w: np.ndarray) -> tuple[float, np.ndarray]:
        margins = self._signed @ w
        return float(np.mean(np.logaddexp(0.0, margins))), sigmoid(margins) @ self._signed / len(margins)

    def batch_gradient(self, w: np.ndarray, batch: np.ndarray) -> np.ndarray:
        rows = self._signed.take(batch, axis=0)
        gradient: np.ndarray = sigmoid(rows @ w) @ rows / len(rows)
        return gradient

    def hessian(self, w: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """d -> X^T (p (1 - p) * (X d)) / n."""
        p = sigmoid(self._signed @ w)
        curvature = p * (1.0 - p) / len(p)
        return lambda d: (curvature * (self._signed @ d)) @ self._signed

    def hessian_matrix(self, w: np.ndarray) -> np.ndarray:
        """X^T Diag(p (1 - p)) X / n."""
        p = sigmoid(self._signed @ w)
        matrix: np.ndarray = (self._signed * (p * (1.0 - p) / len(p))[:, None]).T @ self._signed
        return matrix

    def dual_value(self, w: np.ndarray, scale: float) -> float:
        """Mean entropy of v = scale p and 1 - v, p the probability of a wrong answer at w."""
        v = scale * sigmoid(self._signed @ w)
        terms = [u * np.log(np.where(u > 0, u, 1.0)) for u in (v, 1.0 - v)]
        return -float(np.mean(terms[0] + terms[1]))

    def block_lipschitz(self, entries: np.ndarray) -> float:
        """||X_B||^2 / (4 n)."""
        return 0.25 * float(np.linalg.norm(self._signed[:, entries], 2)) ** 2 / len(self._signed) * (1.0 + 1e-12)

    def self_concordance(self, entries: np.ndarray) -> float:
        """max_i ||x_i,B||."""
        return float(np.sqrt(np.max(np.sum(self._signed[:, entries] ** 2, axis=1), initial=0.0)))


def sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)), in place; by tanh, which does not overflow."""
    z *= 0.5
    np.tanh(z, out=z)
    z += 1.0
    z *= 0.5
    return z


def one_label_per_row(targets: Any, rows: int) -> np.ndarray:
    """``targets`` as a vector of ``rows`` labels."""
    labels = np.asarray(targets)
    if labels.shape != (rows,):
        raise ValueError(f"targets must have {rows} entries (one per row of features), got shape {labels.shape}")
    if labels.dtype.kind not in "biuf" or not np.all(np.isfinite(labels)):
        raise ValueError(f"targets must be finite numbers, got dtype {labels.dtype}")
    return labels


def multinomial_logistic(features: np.ndarray, targets: np.ndarray, regularizer: Regularizer) -> MultinomialLogistic:
    """Multinomial logistic regression with psi, on data of your own; see `MultinomialLogistic` for f.

    Parameters
    ----------
    features : array, shape (n, p)
        One row x_i per sample.
    targets : integer array, shape (n,)
        Classes 0 .. K - 1, each of which occurs.
    regularizer : Regularizer
        psi, on arrays of shape (p, K).

    Returns
    -------
    MultinomialLogistic
        w of shape (p, K), 0 at the start.

    Raises
    ------
    TypeError, ValueError
        If the data are no real numbers, hold NaN or Inf or overflow when squared, if their shapes do not
        fit, or if a class is missing.
    """
    return MultinomialLogistic(features, targets, regularizer)


def binary_logistic(features: np.ndarray, targets: np.ndarray, regularizer: Regularizer) -> BinaryLogistic:
    """Binary logistic regression with psi, on data of your own; see `BinaryLogistic` for f.

    Parameters
    ----------
    features : array, shape (n, p)
        One row x_i per sample.
    targets : array, shape (n,)
        Two distinct values; the larger one counts as y_i = 1, the other as -1.
    regularizer : Regularizer
        psi, on vectors of p entries.

    Returns
    -------
    BinaryLogistic
        w of shape (p,), 0 at the start.

    Raises
    ------
    TypeError, ValueError
        If the data are no real numbers, hold NaN or Inf or overflow when squared, if their shapes do not
        fit, or if the targets do not take exactly two values.
    """
    return BinaryLogistic(features, targets, regularizer)


def digits(weight: float | None = None) -> MultinomialLogistic:
    """scikit-learn's 1797 handwritten digits, pixels / 16, one group of 10 class weights per pixel (64).

    Parameters
    ----------
    weight : float, optional
        lambda of ``GroupLasso(weight, dims=(1,))``, default 5e-3: 28 of the 64 pixels are used at the optimum.

    Returns
    -------
    MultinomialLogistic
        w of shape (64, 10), 1797 samples.

    Raises
    ------
    MissingExtra
        If scikit-learn is not installed.
    """
    with needs("experiments"):
        from sklearn.datasets import load_digits

    data = load_digits()
    regularizer = GroupLasso(5e-3 if weight is None else weight, dims=(1,))
    return MultinomialLogistic(data.data / 16.0, data.target, regularizer, name="digits")


def breast_cancer(weight: float | None = None) -> BinaryLogistic:
    """scikit-learn's breast-cancer data, 569 samples of 30 features standardised to mean 0 and deviation 1; L1.

    Parameters
    ----------
    weight : float, optional
        lambda of ``L1(weight)``, default 5e-3: 12 of the 30 features are used at the optimum.

    Returns
    -------
    BinaryLogistic
        w of shape (30,), 569 samples.

    Raises
    ------
    MissingExtra
        If scikit-learn is not installed.
    """
    with needs("experiments"):
        from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    features = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
    return BinaryLogistic(features, data.target, L1(5e-3 if weight is None else weight), name="breast-cancer")
