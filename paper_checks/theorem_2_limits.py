"""Runs along which every limit in the proof of Theorem 2 is measured, and a schedule that meets its conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ramda_theory.arrays import Array
from ramda_theory.diagnostics import Rate, Table, fit_rate, measure
from ramda_theory.methods import RAMDA, FullGradient, NoisyGradient, Schedule
from ramda_theory.problems import Problem
from ramda_theory.subproblem import Exact, Subproblem
from ramda_theory.subproblem.problem import Candidate
from ramda_theory.subproblem.solve import judge

POINTS_PER_DECADE = 15


def falling_lr(t: int) -> float:
    """eta_t = t^(-9/8): alpha_t ~ t^(3/8), steps s_t/P_t ~ t^(-3/4)."""
    return t**-1.125


def harmonic_averaging(t: int) -> float:
    """c_t = min(1, 4/t), whose sum diverges."""
    return min(1.0, 4.0 / t)


def convergent(**changes: Any) -> Schedule:
    """A schedule under which all conditions of Theorem 2 can hold although every gradient is noisy.

    With eta_t = t^-p and c_t ~ t^-q the steps s_t/P_t fall like t^-x, x = 2p/3.  What_t then wanders by about
    t^(q/2 - x), the quantity in (14) is about t^(1 - q/2 - x), and P_t/alpha_t ~ t^(x - 1).  All three vanish, and
    sum c_t = inf, for x = 3/4 and q = 1 (each like t^(-1/4)), but for no constant lr (x = 0).
    """
    return Schedule(**({"lr": falling_lr, "averaging": harmonic_averaging} | changes))


class Lazy:
    """For l1: as little progress as (7) allows, on the right manifold.

    Where W_{t-1}, its entries off the exact solution's support set to zero, meets (7), it is the answer; else the exact
    solution is.
    """

    def __repr__(self) -> str:
        return "Lazy()"

    def __call__(self, problem: Subproblem, start: Array, tolerance: float, max_iter: int) -> Candidate:
        exact = Exact()(problem, start, tolerance, max_iter)
        lazy = Candidate(np.where(exact.point == 0, 0.0, start), 0)
        return lazy if judge(problem, lazy, tolerance, start).status == "solved" else exact


def follow(
    problem: Problem, method: RAMDA, schedule: Schedule, gradients: NoisyGradient | FullGradient, steps: int
) -> Table:
    """Run RAMDA and measure at geometrically spaced steps.

    Returns
    -------
    Table
        "step", "alpha" and what `measure` gives, and: "squares_error" ||U/alpha - E[g o g](W_t)||, (17); "tolerance"
        eps_t/alpha_t, (20); "metric_least" min P/alpha; "movement", the root mean square of
        ||W_t - W_{t-1}|| alpha_t/s_t, (14), since the last row.
    """
    points = set(np.unique(np.geomspace(10, steps, round(POINTS_PER_DECADE * np.log10(steps / 10))).astype(int)))
    variance = gradients.sigma**2 if isinstance(gradients, NoisyGradient) else 0.0
    state, table, moved = method.init(problem.initial), Table(), []
    for t in range(1, steps + 1):
        settings = schedule.at(t)
        previous, before = state.w, state.weight_sum
        state, _ = method.step(state, gradients(problem, state.query, t), settings)
        change = state.w - previous
        moved.append(float(np.vdot(change, change)) * (state.weight_sum / (state.weight_sum - before)) ** 2)
        if t in points:
            expected_squares = problem.gradient(state.w) ** 2 + variance
            assert state.metric is not None and state.grad_sq_sum is not None
            table.append(
                step=t,
                alpha=state.weight_sum,
                squares_error=float(np.linalg.norm(state.grad_sq_sum / state.weight_sum - expected_squares)),
                tolerance=(settings.tolerance or 0.0) / state.weight_sum,
                metric_least=float(np.min(state.metric)) / state.weight_sum,
                movement=np.sqrt(np.mean(moved)),
                **measure(problem, method, state),
            )
            moved = []
    return table


def mean_table(tables: Sequence[Table]) -> Table:
    """Root mean squares over runs of the same steps."""
    names = tables[0].names
    return Table({name: np.sqrt(np.mean([table[name] ** 2 for table in tables], axis=0)).tolist() for name in names})


def rate(table: Table, name: str, against: str = "step") -> Rate:
    """The power of ``against`` at which a column falls over the second half of the run (on a logarithmic scale)."""
    return fit_rate(table[against], table[name])


def falls(fitted: Rate) -> bool:
    """Whether a quantity goes to zero as far as its fitted power tells."""
    return fitted.exponent + fitted.uncertainty < 0


def words(fitted: Rate) -> str:
    """The exponent and its 95 % interval."""
    return f"{fitted.exponent:.2f} ± {fitted.uncertainty:.2f}"
