"""How far a state is from stationarity, and how fast that falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ramda_theory.extras import needs
from ramda_theory.methods.dual_averaging import DualAveraging, DualAveragingState
from ramda_theory.methods.proximal import FISTAState

if TYPE_CHECKING:
    from ramda_theory.methods import Method
    from ramda_theory.problems import Problem


def measure(problem: Problem, method: Method, state: Any) -> dict[str, float]:
    """Objective and stationarity of a state, and the terms of the proof of Theorem 2 (arXiv:2403.14398).

    Parameters
    ----------
    problem : Problem
        F = f + psi.
    method : Method
        The one whose state it is.
    state : state
        After any step; NumPy arrays.

    Returns
    -------
    dict
        "objective", "objective_w": F(What), F(W).  "stationarity": dist(0, dF(What)).  "gradient_error": distance of
        the method's gradient estimate (V/alpha, or the bias-corrected momentum) from grad f(W), (18).  For dual
        averaging also the terms of (28): "model_error" ||grad f(What) - V/alpha||, "subproblem_error" min||s||/alpha
        over s in dQ(What), "metric_error" ||P (What - W^0)||/alpha; and "metric_norm" max P / alpha, (22).
    """
    w, w_hat, estimate = state.w, state.w_hat, state.gradient_estimate
    at_w_hat = problem.gradient(w_hat)
    at_w = at_w_hat if w is w_hat else problem.gradient(w)
    psi = problem.regularizer
    row = {
        "objective": problem.objective(w_hat),
        "objective_w": problem.objective(w),
        "stationarity": float(psi.subdifferential_distance(w_hat, at_w_hat)),
    }
    if not isinstance(state, FISTAState):
        row["gradient_error"] = distance(estimate, at_w)
    if isinstance(state, DualAveragingState) and isinstance(method, DualAveraging):
        row["model_error"] = distance(estimate, at_w_hat)
        # Nothing was solved yet at the start of a stage.
        alpha, metric = state.weight_sum or np.nan, state.metric
        residual = np.nan if metric is None else float(method.subproblem(state).residual(w_hat))
        metric = np.full_like(w_hat, np.nan) if metric is None else metric
        row["subproblem_error"] = residual / alpha
        row["metric_error"] = float(np.linalg.norm(metric * (w_hat - state.anchor))) / alpha
        row["metric_norm"] = float(np.max(metric)) / alpha
    return row


def distance(estimate: np.ndarray | None, gradient: np.ndarray) -> float:
    """||estimate - gradient||, NaN where there is no estimate yet."""
    return np.nan if estimate is None else float(np.linalg.norm(estimate - gradient))


@dataclass(frozen=True)
class Rate:
    """A power law value ~ t^exponent fitted over a window of steps.

    Attributes
    ----------
    exponent : float
        Slope of log value against log t.
    uncertainty : float
        Half-width of the 95 % interval of the exponent.  Successive values of a run are correlated: it is widened by
        the residuals' lag-one autocorrelation, and is a lower bound on the truth.
    window : (float, float)
        First and last step used.
    points : int
        Values used.
    """

    exponent: float
    uncertainty: float
    window: tuple[float, float]
    points: int


def fit_rate(steps: np.ndarray, values: np.ndarray, window: tuple[float, float] | None = None) -> Rate:
    """Fit value ~ t^exponent by least squares in logarithms.

    Parameters
    ----------
    steps, values : arrays of one length
        Non-positive and non-finite values are left out.
    window : (first, last), optional
        Steps to use; the second half of the run on a logarithmic scale by default.

    Returns
    -------
    Rate
        With the window that was used.

    Raises
    ------
    ValueError
        If fewer than three usable values lie in the window.
    """
    steps, values = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    if steps.shape != values.shape or steps.ndim != 1:
        raise ValueError(f"steps and values must be vectors of one length, got {steps.shape} and {values.shape}")
    if window is None:
        last = float(steps.max(initial=0.0))
        window = (float(np.sqrt(steps[steps > 0].min(initial=last) * last)), last)
    used = (steps >= window[0]) & (steps <= window[1]) & (steps > 0) & np.isfinite(values) & (values > 0)
    count = int(np.count_nonzero(used))
    if count < 3:
        raise ValueError(f"window must hold at least three positive values, {window} holds {count}")
    x, y = np.log(steps[used]), np.log(values[used])
    x_centred = x - x.mean()
    spread = float(x_centred @ x_centred)
    if spread == 0:
        raise ValueError(f"window must hold values at different steps, {window} holds {count} at step {steps[used][0]}")
    exponent = float(x_centred @ y) / spread
    residuals = y - y.mean() - exponent * x_centred
    total = float(residuals @ residuals)
    correlation = float(residuals[1:] @ residuals[:-1]) / total if total > 0 else 0.0
    correlation = min(max(correlation, 0.0), 1.0 - 1.0 / count)
    inflation = np.sqrt((1.0 + correlation) / (1.0 - correlation))
    with needs("experiments"):
        from scipy.stats import t as student

    error = np.sqrt(total / (count - 2) / spread) * inflation
    return Rate(exponent, float(student.ppf(0.975, count - 2) * error), (float(window[0]), float(window[1])), count)
