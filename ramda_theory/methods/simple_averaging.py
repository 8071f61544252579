"""Regularized dual averaging with equal weights (Xiao 2010), the first of its kind."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ramda_theory.arrays import Array, to_float64
from ramda_theory.methods.dual_averaging import DualAveraging, DualAveragingState
from ramda_theory.methods.state import Settings, average, checked_gradient
from ramda_theory.subproblem import Solution


@dataclass(frozen=True)
class RDA(DualAveraging):
    """argmin <Gbar, W> + psi(W) + sqrt(t)/(2 eta t) ||W - W^0||^2, Gbar the mean of all gradients (Xiao 2010).

    RMDA with weights s_t = eta_t in the place of eta_t sqrt(t), and without averaging where c = 1.

    Parameters
    ----------
    regularizer, solver, max_iter
        As in `DualAveraging`.
    """

    def _initial_squares(self, zero: Array) -> None:
        return None

    def _weight_of(self, memory: int, lr: float) -> float:
        return lr * memory

    def step(
        self, state: DualAveragingState, gradient: Array, settings: Settings
    ) -> tuple[DualAveragingState, Solution | None]:
        """What_t = prox_{(alpha/sqrt t) psi}(W^0 - V_t/sqrt t), alpha_t = eta_1 + ... + eta_t.

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
        t, s = state.step + 1, settings.lr
        # alpha_t = alpha_{t-1} + eta_t,  V_t = V_{t-1} + eta_t G_t,  beta_t = sqrt(t)
        alpha, v, beta = state.weight_sum + s, state.grad_sum + s * gradient, math.sqrt(t)
        summed = DualAveragingState(state.w, state.w_hat, state.anchor, v, None, alpha, t, xp.full_like(v, beta))
        if self.solver is None:
            # What_t = prox_{(alpha_t/beta_t) psi}( W^0 - V_t/beta_t )
            forward = to_float64(xp, state.anchor) - to_float64(xp, v) / beta
            w_hat = xp.astype(self.regularizer.prox(forward, alpha / beta), v.dtype)
            solved, solution = replace(summed, w_hat=w_hat), None
        else:
            solved, solution = self._solve(summed, settings.tolerance)
        # W_t = (1 - c_t) W_{t-1} + c_t What_t
        return replace(solved, w=average(state.w, solved.w_hat, settings.averaging)), solution
