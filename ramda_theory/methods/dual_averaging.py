"""Regularized dual averaging: RAMDA (Algorithm 1 of arXiv:2403.14398) and RMDA (Huang & Lee 2022).

Without a regularizer they are MADGRAD (Defazio & Jelassi 2022) and MDA (Jelassi & Defazio 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from ramda_theory.arrays import Array, cbrt, namespace, sum_of_roots, to_float64
from ramda_theory.methods.state import Settings, average, checked_gradient, zero_if_none
from ramda_theory.subproblem import Solution, Subproblem, solve
from ramda_theory.subproblem.solve import Solver


@dataclass(frozen=True)
class DualAveragingState:
    """State of RAMDA and RMDA after t steps of a stage.

    Attributes
    ----------
    w, w_hat : array
        W_t and What_t (What = W before the first step of a stage).
    anchor : array
        W^0, where the stage started.
    grad_sum, grad_sq_sum : array
        V_t and U_t; RMDA has no U.
    weight_sum : float
        alpha_t.
    step : int
        t.
    metric : array or None
        Diagonal of P_t; None before the first step of a stage.
    """

    w: Array
    w_hat: Array
    anchor: Array
    grad_sum: Array
    grad_sq_sum: Array | None
    weight_sum: float = 0.0
    step: int = 0
    metric: Array | None = None

    @property
    def query(self) -> Array:
        """Gradients are taken at W."""
        return self.w

    @property
    def gradient_estimate(self) -> Array | None:
        """V_t / alpha_t; None while alpha_t = 0."""
        return self.grad_sum / self.weight_sum if self.weight_sum > 0 else None


@dataclass(frozen=True)
class DualAveraging:
    """What RAMDA and RMDA share.

    Parameters
    ----------
    regularizer : Regularizer, optional
        psi; None for psi = 0.
    solver : str or solver, optional
        How subproblem (4) is solved; by default exactly where that is possible, else as `solve` chooses.  Naming an
        inexact solver makes every step use ``settings.tolerance`` and return its judged solution.
    max_iter : int
        Inner limit T2 of an inexact solver.
    """

    regularizer: Any = None  # a Regularizer; None becomes psi = 0
    solver: str | Solver | None = None
    max_iter: int = 10_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "regularizer", zero_if_none(self.regularizer))

    def init(self, w: Array) -> DualAveragingState:
        """The state before the first step.

        Parameters
        ----------
        w : array
            W_0, floating point; copied.

        Returns
        -------
        DualAveragingState
            With t = 0, anchored at W_0, sums of zero.
        """
        xp = namespace(w=w)
        w = xp.asarray(w, copy=True)
        zero = xp.zeros_like(w)
        return DualAveragingState(w, w, w, zero, self._initial_squares(zero))

    def _initial_squares(self, zero: Array) -> Array | None:
        return zero

    def _weight_of(self, memory: int, lr: float) -> float:
        """alpha after ``memory`` steps with this learning rate."""
        return lr * sum_of_roots(memory)

    def restart(self, state: DualAveragingState, settings: Settings, memory: int = 0) -> DualAveragingState:
        """Anchor at the current W and forget the gradients, or keep their averages as if ``memory`` steps were seen.

        With memory, t = memory, alpha = sum_{k <= memory} eta sqrt(k), and V and U keep V/alpha and U/alpha.

        Parameters
        ----------
        state : DualAveragingState
            At the end of a stage.
        settings : Settings
            Of the first step of the new stage.
        memory : int
            Steps, >= 0; 0 forgets all, as published.

        Returns
        -------
        DualAveragingState
            Anchored at W, with What = W.
        """
        alpha = self._weight_of(memory, settings.lr)
        kept = alpha / state.weight_sum if state.weight_sum > 0 else 0.0
        return replace(
            state,
            w_hat=state.w,
            anchor=state.w,
            grad_sum=kept * state.grad_sum,
            grad_sq_sum=None if state.grad_sq_sum is None else kept * state.grad_sq_sum,
            weight_sum=alpha if kept else 0.0,
            step=memory if kept else 0,
            metric=None,
        )

    def subproblem(self, state: DualAveragingState) -> Subproblem:
        """The subproblem (4) that ``state.w_hat`` solved.

        Parameters
        ----------
        state : DualAveragingState
            After a step.

        Returns
        -------
        Subproblem

        Raises
        ------
        ValueError
            Before the first step of a stage.
        """
        if state.metric is None:
            raise ValueError("there is no subproblem before the first step of a stage")
        return Subproblem(state.anchor, state.grad_sum, state.metric, state.weight_sum, self.regularizer)

    def _solve(self, state: DualAveragingState, tolerance: float | None) -> tuple[DualAveragingState, Solution | None]:
        """What_t from the sums in ``state``."""
        psi, alpha, metric = self.regularizer, state.weight_sum, state.metric
        if self.solver is None and psi.has_metric_prox(metric, alpha):
            linear = state.grad_sum - metric * state.anchor
            return replace(state, w_hat=psi.metric_prox(linear, metric, alpha)), None
        problem = self.subproblem(state)
        solution = solve(problem, self.solver, start=state.w, tolerance=tolerance, max_iter=self.max_iter)
        return replace(state, w_hat=solution.point), solution


@dataclass(frozen=True)
class RAMDA(DualAveraging):
    """Algorithm 1: dual averaging in the metric P_t = Diag(cbrt(U_t) + eps).

    Parameters
    ----------
    regularizer, solver, max_iter
        As in `DualAveraging`.
    """

    def step(
        self, state: DualAveragingState, gradient: Array, settings: Settings
    ) -> tuple[DualAveragingState, Solution | None]:
        """A step of Algorithm 1 of arXiv:2403.14398.

        Parameters
        ----------
        state : DualAveragingState
            After t - 1 steps.
        gradient : array
            G_t at W_{t-1}, of the shape of w, finite.
        settings : Settings
            Of which lr, averaging, eps and tolerance count.

        Returns
        -------
        state : DualAveragingState
            After t steps.
        solution : Solution or None
            None where the subproblem was solved in closed form.

        Raises
        ------
        TypeError, ValueError
            If the gradient is of another kind or shape, or holds NaN or Inf.
        """
        xp = checked_gradient(gradient, state.w)
        t = state.step + 1
        # s_t = eta_t sqrt(t),  alpha_t = alpha_{t-1} + s_t
        s = settings.lr * math.sqrt(t)
        alpha = state.weight_sum + s
        # V_t = V_{t-1} + s_t G_t,  U_t = U_{t-1} + s_t (G_t o G_t)
        v = state.grad_sum + s * gradient
        u = state.grad_sq_sum + s * gradient * gradient
        # P_t = Diag(cbrt(U_t) + eps)
        metric = cbrt(xp, u) + settings.eps
        # What_t = argmin alpha_t psi(W) + <V_t, W> + 1/2 <W - W^0, P_t (W - W^0)>
        summed = DualAveragingState(state.w, state.w_hat, state.anchor, v, u, alpha, t, metric)
        solved, solution = self._solve(summed, settings.tolerance)
        # W_t = (1 - c_t) W_{t-1} + c_t What_t
        return replace(solved, w=average(state.w, solved.w_hat, settings.averaging)), solution


@dataclass(frozen=True)
class RMDA(DualAveraging):
    """Dual averaging in the metric P_t = sqrt(t) I, whose subproblem is a proximal map.

    Parameters
    ----------
    regularizer, solver, max_iter
        As in `DualAveraging`.
    """

    def _initial_squares(self, zero: Array) -> None:
        return None

    def step(
        self, state: DualAveragingState, gradient: Array, settings: Settings
    ) -> tuple[DualAveragingState, Solution | None]:
        """What_t = prox_{(alpha/beta) psi}(W^0 - V_t/beta), beta = sqrt(t), then the average (5) of arXiv:2403.14398.

        Parameters
        ----------
        state : DualAveragingState
            After t - 1 steps.
        gradient : array
            G_t at W_{t-1}, of the shape of w, finite.
        settings : Settings
            Of which lr, averaging and tolerance count.

        Returns
        -------
        state : DualAveragingState
            After t steps.
        solution : Solution or None
            None where the subproblem was solved in closed form.

        Raises
        ------
        TypeError, ValueError
            If the gradient is of another kind or shape, or holds NaN or Inf.
        """
        xp = checked_gradient(gradient, state.w)
        t = state.step + 1
        # s_t = eta_t sqrt(t),  alpha_t = alpha_{t-1} + s_t
        s = settings.lr * math.sqrt(t)
        alpha = state.weight_sum + s
        # V_t = V_{t-1} + s_t G_t
        v = state.grad_sum + s * gradient
        # beta_t = sqrt(t),  P_t = beta_t I
        beta = math.sqrt(t)
        metric = xp.full_like(v, beta)
        summed = DualAveragingState(state.w, state.w_hat, state.anchor, v, None, alpha, t, metric)
        if self.solver is None:
            # What_t = prox_{(alpha_t/beta_t) psi}( W^0 - V_t/beta_t )
            forward = to_float64(xp, state.anchor) - to_float64(xp, v) / beta
            w_hat = xp.astype(self.regularizer.prox(forward, alpha / beta), v.dtype)
            solved, solution = replace(summed, w_hat=w_hat), None
        else:
            solved, solution = self._solve(summed, settings.tolerance)
        # W_t = (1 - c_t) W_{t-1} + c_t What_t
        return replace(solved, w=average(state.w, solved.w_hat, settings.averaging)), solution


def MADGRAD() -> RAMDA:
    """RAMDA without a regularizer (Defazio & Jelassi 2022), by the recurrence of arXiv:2403.14398.

    Returns
    -------
    RAMDA
        With psi = 0.
    """
    return RAMDA(None)


def MDA() -> RMDA:
    """RMDA without a regularizer (Jelassi & Defazio 2020).

    Returns
    -------
    RMDA
        With psi = 0.
    """
    return RMDA(None)
