"""The runs that the checks of Theorem 2 share, each made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from paper_checks.theorem_2_limits import Lazy, convergent, follow, mean_table, rate
from ramda_theory.diagnostics import Rate, Table
from ramda_theory.drawing import line_style, new_figure, style
from ramda_theory.methods import RAMDA, FullGradient, NoisyGradient, Schedule
from ramda_theory.problems import Problem, lasso
from ramda_theory.subproblem import PolynomialTolerance
from ramda_theory.subproblem.solve import Solver

SIGMA = 0.1
"""Deviation of the gradients' noise in every entry, at each step; the planted weight lambda is 0.1 too."""

SUMMABLE = PolynomialTolerance(0.1, 0.6)


@cache
def problem() -> Problem:
    """LASSO with 50 features, 10 of them in the planted solution, margin 0.2."""
    return lasso()


def steps(quick: bool) -> int:
    """Length of every run."""
    return 2500 if quick else 10_000


class SeedMean(Table):
    """Root mean squares over the seeds, whose own tables are in ``seeds``."""

    def __init__(self, seeds: Sequence[Table]) -> None:
        mean = mean_table(seeds)
        super().__init__({name: mean[name].tolist() for name in mean.names})
        self.seeds = tuple(seeds)


def followed(
    schedule: Schedule, quick: bool, solver: str | Solver | None = None, sigma: float = SIGMA, seeds: int = 3
) -> SeedMean:
    """The limits along runs of some seeds, or of one if there is no noise or the run is quick."""
    method = RAMDA(problem().regularizer, solver=solver)
    gradients = [NoisyGradient(sigma, seed) for seed in range(1 if quick else seeds)] if sigma else [FullGradient()]
    return SeedMean([follow(problem(), method, schedule, oracle, steps(quick)) for oracle in gradients])


@cache
def reference(quick: bool) -> SeedMean:
    """The run that meets (8) and (13), its subproblems solved by Algorithm 2 within square-summable tolerances."""
    return followed(convergent(tolerance=SUMMABLE), quick, "proximal_gradient")


@cache
def constant(quick: bool, averaging: float = 0.1, sigma: float = SIGMA) -> SeedMean:
    """A stage of the experiments: constant lr 0.1 and averaging; without noise for ``sigma`` 0."""
    return followed(Schedule(0.1, averaging), quick, sigma=sigma)


def growing_tolerance(t: int) -> float:
    """eps_t ~ 0.05 alpha_t of the `convergent` schedule: neither (8) nor (20) holds."""
    return 0.05 * 8.0 / 3.0 * t**0.375


def plain(fitted: Rate) -> dict[str, float]:
    """A fitted power as plain data."""
    return {"exponent": fitted.exponent, "uncertainty": fitted.uncertainty}


def curves(tables: Mapping[str, SeedMean], column: str, label: str, title: str) -> Any:
    """One column of several runs over t with the range of the seeds, and the fitted powers."""
    with style():
        figure = new_figure(5.4, 3.6)
        axes = figure.subplots()
        for index, (name, table) in enumerate(tables.items()):
            look = line_style(index) | {"label": f"{name}: $t^{{{rate(table, column).exponent:.2f}}}$"}
            draw_seeds(axes, table["step"], table[column], [seed[column] for seed in table.seeds], **look)
        axes.set(xlabel="iteration t", ylabel=label, title=title, xscale="log", yscale="log")
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def draw_seeds(axes: Any, steps: np.ndarray, mean: np.ndarray, seeds: Sequence[np.ndarray], **look: Any) -> None:
    """A curve in the band between the least and the largest value of the seeds."""
    axes.plot(steps, mean, linewidth=1.4, **look)
    if len(seeds) > 1:
        axes.fill_between(
            steps, np.min(seeds, axis=0), np.max(seeds, axis=0), color=look["color"], alpha=0.2, linewidth=0
        )


@cache
def lazy(quick: bool, tolerance: Any, seeds: int) -> SeedMean:
    """The run of `reference` with the laziest answers (7) allows."""
    return followed(convergent(tolerance=tolerance), quick, Lazy(), seeds=seeds)


def right_side(table: Table) -> np.ndarray:
    """The sum of the three terms of (28), with eps_t (or the residual of an exact solution, where no eps_t is set)."""
    inner = np.where(table["tolerance"] > 0, table["tolerance"], table["subproblem_error"])
    return table["model_error"] + inner + table["metric_error"]
