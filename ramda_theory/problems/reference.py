"""Reference solutions: a long proximal gradient run, then Newton's method on the manifold it found.

Neither part is trusted: a `Reference` carries the stationarity measured at its point.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ramda_theory.problems.solution import CERTIFIED, Composite, Reference
from ramda_theory.structure import Pattern

Operator = Callable[[np.ndarray], np.ndarray]


def reference_at(problem: Composite, point: np.ndarray, origin: str) -> Reference:
    """Everything a `Reference` says about ``point``, measured there."""
    point = np.array(point, dtype=np.float64)
    point.flags.writeable = False
    value, gradient = problem.value_and_gradient(point)
    regularizer = problem.regularizer
    stationarity = float(regularizer.subdifferential_distance(point, gradient))
    return Reference(
        point=point,
        objective=value + float(regularizer.value(point)),
        stationarity=stationarity,
        structure=regularizer.structure(point),
        margin=float(regularizer.nondegeneracy_margin(point, gradient)),
        certified=stationarity <= CERTIFIED,
        origin=origin,
    )


def find_reference(problem: Composite, tolerance: float = 0.1 * CERTIFIED, max_iter: int = 20_000) -> Reference:
    """Run proximal gradient steps from ``problem.initial`` and polish whenever the structure has settled.

    The steps are accelerated if F is convex.  They go in blocks of growing length; where a block left the structure
    as it was, Newton's method is tried on that manifold.  The search ends when the stationarity is within
    ``tolerance``, or after ``max_iter`` steps with the last point, whose `Reference` then says how far it came.

    Parameters
    ----------
    problem : Problem
        F = f + psi.
    tolerance : float
        dist(0, dF) to reach.
    max_iter : int
        Limit on the proximal gradient steps.

    Returns
    -------
    Reference
        What was measured at the last point; ``certified`` if its stationarity is at most 1e-10.
    """
    regularizer = problem.regularizer
    run = ProximalGradientRun(problem, accelerated=problem.convex and regularizer.convex)
    structure = regularizer.structure(run.point)
    block = 50
    while True:
        for _ in range(min(block, max_iter - run.steps)):
            run.step()
        block *= 2
        point, origin = run.point, f"{run.name} from the initial point, {run.steps} steps"
        previous, structure = structure, regularizer.structure(point)
        if structure == previous and isinstance(structure, Pattern):
            polished = polish(problem, point, tolerance)
            if problem.stationarity(polished) < problem.stationarity(point):
                point, origin = polished, f"{origin}, then Newton steps on its manifold"
        if problem.stationarity(point) <= tolerance or run.steps >= max_iter:
            return reference_at(problem, point, origin)


class ProximalGradientRun:
    """x+ = prox_{psi/L}(y - grad f(y)/L), with y = x, or, accelerated, FISTA's y restarted when it points uphill.

    L is the problem's Lipschitz constant.  Where it has none, L starts small and doubles whenever
    ||grad f(x+) - grad f(y)|| > 0.9 L ||x+ - y||.
    """

    def __init__(self, problem: Composite, accelerated: bool) -> None:
        self.problem, self.accelerated = problem, accelerated
        self.name = "accelerated proximal gradient" if accelerated else "proximal gradient"
        self.point = self._y = np.array(problem.initial)
        self.steps = 0
        self._t = 1.0
        self._inverse_step = 1e-3 if problem.lipschitz is None else problem.lipschitz

    def step(self) -> None:
        gradient = self.problem.gradient(self._y)
        x = self._forward_backward(gradient)
        while self.problem.lipschitz is None and self._too_long(x, gradient):
            self._inverse_step *= 2.0
            x = self._forward_backward(gradient)
        self._y = self._extrapolated(x) if self.accelerated else x
        self.point = x
        self.steps += 1

    def _forward_backward(self, gradient: np.ndarray) -> np.ndarray:
        step = 1.0 / self._inverse_step
        point: np.ndarray = self.problem.regularizer.prox(self._y - step * gradient, step)
        return point

    def _too_long(self, x: np.ndarray, gradient: np.ndarray) -> bool:
        change = np.linalg.norm(self.problem.gradient(x) - gradient)
        return bool(change > 0.9 * self._inverse_step * np.linalg.norm(x - self._y))

    def _extrapolated(self, x: np.ndarray) -> np.ndarray:
        if np.vdot(self._y - x, x - self.point) > 0:
            self._t = 1.0
        t_next = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * self._t**2))
        momentum, self._t = (self._t - 1.0) / t_next, t_next
        extrapolated: np.ndarray = x + momentum * (x - self.point)
        return extrapolated


def polish(problem: Composite, w: np.ndarray, tolerance: float, max_iter: int = 30) -> np.ndarray:
    """Newton's method for F on the manifold of ``w``: the active entries, where F is smooth.

    The systems are solved by conjugate gradients.  A step is shortened until it keeps the structure, reduces the
    gradient of F on the manifold and does not raise F beyond rounding; where no step does, or the Hessian shows
    nonpositive curvature, the point reached so far is returned.
    """
    regularizer = problem.regularizer
    structure = regularizer.structure(w)

    def slope(point: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = problem.value_and_gradient(point)
        residual = regularizer.subdifferential_residual(point, gradient)
        return value + float(regularizer.value(point)), regularizer.tangent(w, residual)

    objective, residual = slope(w)
    for _ in range(max_iter):
        size = float(np.linalg.norm(residual))
        if size <= 0.1 * tolerance:
            break
        direction = newton_direction(problem, w, residual)
        if direction is None:
            break
        length = 1.0
        while length > 1e-4:
            trial = w + length * direction
            trial_objective, trial_residual = slope(trial)
            if (
                regularizer.structure(trial) == structure
                and np.linalg.norm(trial_residual) <= (1.0 - 1e-4 * length) * size
                and trial_objective <= objective + 1e-13 * abs(objective)
            ):
                break
            length *= 0.5
        else:
            break
        w, objective, residual = trial, trial_objective, trial_residual
    return w


def newton_direction(problem: Composite, w: np.ndarray, residual: np.ndarray) -> np.ndarray | None:
    """Solve (Hessian of F on the manifold) d = -residual, the more accurately the smaller the residual."""
    smooth, penalty = problem.hessian(w), problem.regularizer.manifold_hessian(w)

    def hessian(d: np.ndarray) -> np.ndarray:
        image: np.ndarray = problem.regularizer.tangent(w, smooth(d) + penalty(d))
        return image

    return conjugate_gradients(hessian, -residual, accuracy=min(0.1, math.sqrt(float(np.linalg.norm(residual)))))


def conjugate_gradients(operator: Operator, b: np.ndarray, accuracy: float) -> np.ndarray | None:
    """Solve ``operator`` x = b to relative residual ``accuracy``; None where the operator is not positive definite."""
    x = np.zeros_like(b)
    r = p = b
    square = float(np.vdot(r, r))
    goal = accuracy**2 * square
    for _ in range(2 * b.size):
        if square <= goal:
            break
        ap = operator(p)
        along = float(np.vdot(p, ap))
        if along <= 0:
            return None
        x = x + (square / along) * p
        r = r - (square / along) * ap
        square, previous = float(np.vdot(r, r)), square
        p = r + (square / previous) * p
    return x
