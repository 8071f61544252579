"""Runs on planted problems, and when their structure was right for good."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ramda_theory.diagnostics import Record
from ramda_theory.methods import Method, NoisyGradient, Schedule
from ramda_theory.problems import Problem, group_lasso, lasso, low_rank
from ramda_theory.run import run

SIGMA = 0.05
"""Deviation of the gradients' noise in every entry, half of the planted lambda (l1, nuclear norm)."""

Factory = Callable[[float, int], Problem]
"""(margin, seed) -> a planted problem."""


def planted_lasso(margin: float, seed: int) -> Problem:
    """50 entries, 10 nonzero."""
    return lasso(margin=margin, seed=seed)


def planted_groups(margin: float, seed: int) -> Problem:
    """20 groups of 5 entries, 5 nonzero."""
    return group_lasso(margin=margin, seed=seed)


def planted_rank(margin: float, seed: int) -> Problem:
    """10 x 8 matrices, rank 2."""
    return low_rank(rows=10, columns=8, samples=120, rank=2, margin=margin, seed=seed)


def recorded(
    problem: Problem, method: Method, schedule: Schedule, steps: int, seed: int, sigma: float = SIGMA
) -> Record:
    """A run with independent noise of constant size in every gradient."""
    return run(problem, method, schedule, steps, gradients=NoisyGradient(sigma, seed)).record


def errors(record: Record, problem: Problem) -> np.ndarray:
    """Pieces in which the structure of What_t differs from the planted one, after every step."""
    return record.structures_hat.distances(problem.solution().structure)


def errors_w(record: Record, problem: Problem) -> np.ndarray:
    """The same of W_t."""
    return record.structures_w.distances(problem.solution().structure)


def right_from(wrong: np.ndarray) -> int:
    """T0, the step after the last wrong one (after the end if the last step is wrong)."""
    steps = np.flatnonzero(wrong)
    return int(steps[-1]) + 2 if len(steps) else 1


def identified(wrong: np.ndarray) -> bool:
    """Whether the structure was right over the whole second half of the run."""
    return right_from(wrong) <= len(wrong) // 2


def quartiles(values: list[int]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [float(q) for q in np.quantile(values, (0.25, 0.5, 0.75))]


def spells(wrong: np.ndarray) -> Iterator[tuple[int, int]]:
    """The (first, last) steps of every maximal stretch of right structure."""
    edges = np.flatnonzero(np.diff(np.concatenate([[1], (wrong != 0).astype(int), [1]])))
    yield from ((int(first) + 1, int(last)) for first, last in zip(edges[::2], edges[1::2], strict=True))
