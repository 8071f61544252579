"""Algorithm 2 written out a second time, its iterations to a tolerance counted, and the slopes Theorem 1 predicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Any

import numpy as np

from paper_checks.subproblems import SHAPE
from ramda_theory.regularizers import GroupLasso, NuclearNorm
from ramda_theory.subproblem import Subproblem

LIMIT = 20_000_000
DECADES = np.arange(1.0, 4.1, 0.5)


def steps(problem: Subproblem, start: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """Z_j and the residual (9) of Algorithm 2, j = 1, 2, ..., for ever; theta is halved for nonconvex psi."""
    psi, alpha, z = problem.regularizer, problem.weight_sum, start
    theta = (1.0 if psi.convex else 0.5) / float(np.max(problem.metric))
    while True:
        z_next = psi.prox(z - theta * problem.gradient(z), alpha * theta)
        yield z_next, float(np.linalg.norm((problem.metric - 1.0 / theta) * (z_next - z)))
        z = z_next


def residuals(problem: Subproblem, start: np.ndarray) -> Iterator[float]:
    """The residual (9) after each step of Algorithm 2."""
    return (residual for _, residual in steps(problem, start))


def first_hits(residuals: Iterator[float], tolerances: np.ndarray, limit: int) -> np.ndarray:
    """The first iteration at which the residual is within each of the decreasing ``tolerances``; ``limit`` if none."""
    hits: list[int] = []
    for iteration, residual in enumerate(islice(residuals, limit), start=1):
        while len(hits) < len(tolerances) and residual <= tolerances[len(hits)]:
            hits.append(iteration)
        if len(hits) == len(tolerances):
            break
    return np.array(hits + [limit] * (len(tolerances) - len(hits)))


def grouped_hits(
    problem: Subproblem, start: np.ndarray, tolerances: np.ndarray, limit: int, step: str = "global"
) -> np.ndarray:
    """`first_hits` for l1 and group LASSO in a compiled loop, which makes 1e7 iterations affordable."""
    psi, alpha = problem.regularizer, problem.weight_sum
    # An l1 entry is a group of one: the threshold alpha weight sqrt(1).
    rows = (-1, SHAPE[1]) if isinstance(psi, GroupLasso) else (-1, 1)
    metric, z = problem.metric.reshape(rows), start.reshape(rows).copy()
    largest = metric.max(axis=1) if step == "group" else np.full(len(metric), metric.max())
    threshold = alpha * psi.weight * np.sqrt(metric.shape[1])
    hits = np.full(len(tolerances), limit)
    compiled(grouped_loop)(-problem.linear.reshape(rows), metric, 1.0 / largest, threshold, z, tolerances, limit, hits)
    return hits


def grouped_loop(b, d, theta, threshold, z, tolerances, limit, hits) -> None:
    """Proximal gradient steps of size theta[g] on 1/2 <z, d z> - <b, z> + threshold sum_g ||z_g||, groups in rows."""
    groups, size = d.shape
    reached, forward = 0, np.empty(size)
    for iteration in range(1, limit + 1):
        square = 0.0
        for g in range(groups):
            length = 0.0
            for i in range(size):
                forward[i] = z[g, i] - theta[g] * (d[g, i] * z[g, i] - b[g, i])
                length += forward[i] * forward[i]
            length = np.sqrt(length)
            factor = 1.0 - theta[g] * threshold / length if length > theta[g] * threshold else 0.0
            for i in range(size):
                moved = factor * forward[i] - z[g, i]
                square += ((d[g, i] - 1.0 / theta[g]) * moved) ** 2
                z[g, i] = factor * forward[i]
        while square <= tolerances[reached] ** 2:
            hits[reached] = iteration
            reached += 1
            if reached == len(tolerances):
                return


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, compiled at its first call."""
    from numba import njit

    return njit(function)


def asymptotic_tolerances(problem: Subproblem, start: np.ndarray, solution: np.ndarray) -> np.ndarray:
    """From 10^-1 to 10^-4 times min P ||Z_0 - Z*||, the residual of an error in the slowest entry."""
    return float(np.min(problem.metric) * np.linalg.norm(start - solution)) * 10.0**-DECADES


def predicted_slope(condition: float) -> float:
    """-1/log(1 - min P/max P), iterations per unit of log 1/eps."""
    return -1.0 / math.log1p(-1.0 / condition) if condition > 1 else 0.0


def fitted_line(tolerances: np.ndarray, hits: np.ndarray) -> tuple[float, float]:
    """Slope of the iterations against log 1/eps, and the share of their variance that the line leaves."""
    x, y = -np.log(tolerances), np.asarray(hits, dtype=float)
    slope, level = np.polyfit(x, y, 1)
    left = float(np.sum((y - slope * x - level) ** 2))
    return float(slope), left / max(float(np.sum((y - y.mean()) ** 2)), 1e-300) if np.ptp(y) else 0.0


def counted(problem: Subproblem, start: np.ndarray, tolerances: np.ndarray, limit: int = LIMIT) -> np.ndarray:
    """Iterations of Algorithm 2 to each tolerance."""
    if isinstance(problem.regularizer, NuclearNorm):
        return first_hits(residuals(problem, start), tolerances, limit)
    return grouped_hits(problem, start, tolerances, limit)


def slope_by_decay(problem: Subproblem, start: np.ndarray, iterations: int) -> float:
    """The slope that the decay of the residual over the second half of a run extrapolates to."""
    trace = np.fromiter(islice(residuals(problem, start), iterations), float)
    trace = trace[trace > 1e-13 * problem.magnitude]  # above rounding
    trace = trace[len(trace) // 2 :]
    return -1.0 / float(np.polyfit(np.arange(len(trace)), np.log(trace), 1)[0])
