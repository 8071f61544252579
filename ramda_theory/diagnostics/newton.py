"""Proximal Newton steps: minimise F with f replaced by its second-order model, which repairs a wrong structure.

Data are touched once per step, for a gradient and a Hessian; the model's minimiser is found without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ramda_theory.problems import Problem
from ramda_theory.problems.reference import find_reference
from ramda_theory.regularizers import Regularizer

DENSE = 2000
"""Entries up to which the Hessian is kept as a matrix."""
DAMPING = 1e-10


class Model:
    """<G, d> + 1/2 <d, (H + damping) d> + psi(w + d) as a problem in u = w + d; see `Composite`.

    Parameters
    ----------
    regularizer : Regularizer
    w, gradient : float64 array
        The point, and the gradient of f there.
    product : callable
        d -> H d.
    convex : bool
        Whether H is positive semidefinite.
    lipschitz : float or None
        The largest eigenvalue of H.
    start : float64 array, optional
        Where its solver begins; w by default.
    """

    def __init__(
        self,
        regularizer: Regularizer,
        w: np.ndarray,
        gradient: np.ndarray,
        product: Callable[[np.ndarray], np.ndarray],
        convex: bool,
        lipschitz: float | None,
        start: np.ndarray | None = None,
    ) -> None:
        self.regularizer, self.convex, self.lipschitz = regularizer, convex, lipschitz
        self.initial, self._centre = w if start is None else start, w
        self._gradient, self._product = gradient, product

    def hessian(self, w: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return lambda d: self._product(d) + DAMPING * d

    def value_and_gradient(self, w: np.ndarray) -> tuple[float, np.ndarray]:
        d = w - self._centre
        image = self.hessian(w)(d)
        return float(np.vdot(self._gradient, d) + 0.5 * np.vdot(d, image)), self._gradient + image

    def gradient(self, w: np.ndarray) -> np.ndarray:
        return self.value_and_gradient(w)[1]

    def stationarity(self, w: np.ndarray) -> float:
        return float(self.regularizer.subdifferential_distance(w, self.gradient(w)))


def model_at(problem: Problem, w: np.ndarray, gradient: np.ndarray, start: np.ndarray | None = None) -> Model:
    """The second-order model of F at a point (of whose gradient the given one may be an estimate)."""
    psi = problem.regularizer
    if w.size > DENSE:
        return Model(psi, w, gradient, problem.hessian(w), problem.convex, problem.lipschitz, start)
    hessian = problem.hessian_matrix(w)
    eigenvalues = np.linalg.eigvalsh(hessian)
    if not problem.convex and eigenvalues[0] < 0:  # a convex model has a minimiser
        shift = -1.1 * float(eigenvalues[0])
        hessian, eigenvalues = hessian + shift * np.eye(w.size), eigenvalues + shift
    top = max(float(eigenvalues[-1]), 1e-300) * (1.0 + 1e-9) + DAMPING
    return Model(psi, w, gradient, lambda d: (hessian @ d.ravel()).reshape(d.shape), True, top, start)


@dataclass(frozen=True)
class NewtonPoint:
    """A point of the iteration and what was measured there.

    Attributes
    ----------
    point, gradient : float64 array
        w and grad f(w).
    value : float
        f(w).
    stationarity : float
        dist(0, dF(w)).
    passes : int
        Gradients (or values) of f evaluated so far, this one included.
    """

    point: np.ndarray
    gradient: np.ndarray
    value: float
    stationarity: float
    passes: int


def proximal_newton(problem: Problem, w: np.ndarray, max_passes: int, inner: int = 4000) -> Iterator[NewtonPoint]:
    """Points of the proximal Newton method from ``w``, which comes first; it ends where no step reduces F.

    A step is shortened until F falls by a ten-thousandth of what the model promises (backtracking); where F no longer
    tells points apart, until dist(0, dF) falls.

    Parameters
    ----------
    problem : Problem
    w : float64 array
        The start.
    max_passes : int
        Evaluations of f at most.
    inner : int
        Steps of the model's solver at most.

    Yields
    ------
    NewtonPoint
    """
    psi = problem.regularizer
    value, gradient = problem.value_and_gradient(w)
    passes = 1
    while True:
        stationarity = float(psi.subdifferential_distance(w, gradient))
        yield NewtonPoint(w, gradient, value, stationarity, passes)
        if stationarity == 0 or passes >= max_passes:
            return
        accuracy = max(1e-2 * min(1e-1, stationarity) * stationarity, 1e-14)
        model = model_at(problem, w, gradient)
        target = find_reference(model, accuracy, inner).point
        d, penalty = target - w, float(psi.value(w))
        promised = float(np.vdot(gradient, d)) + float(psi.value(target)) - penalty
        objective, length = value + penalty, 1.0
        while passes < max_passes:
            trial = target if length == 1.0 else w + length * d
            new_value, new_gradient = problem.value_and_gradient(trial)
            passes += 1
            new = new_value + float(psi.value(trial))
            flat = abs(new - objective) <= 1e-14 * (1.0 + abs(objective))
            if new <= objective + 1e-4 * length * promised and not flat:
                break
            if flat and float(psi.subdifferential_distance(trial, new_gradient)) < stationarity:
                break
            length *= 0.5
            if flat or length < 1e-6:
                return
        else:
            return
        w, value, gradient = trial, new_value, new_gradient
