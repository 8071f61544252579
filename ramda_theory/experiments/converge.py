"""Convergence curves: objective gap, dist(0, dF) and the terms of (28) of any methods on any problem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ramda_theory.checkpoint import describe
from ramda_theory.diagnostics import Rate, Record, Table, fit_rate
from ramda_theory.drawing.provenance import record_figure
from ramda_theory.experiments.settings import DETERMINISTIC, Setting, checkpoint_path, problem_named, select
from ramda_theory.methods import FullGradient, SampledGradient
from ramda_theory.problems import Problem, Reference
from ramda_theory.problems.checks import integer
from ramda_theory.run import run
from ramda_theory.tables import aligned

POINTS = 120
"""Measurements along a run."""


@dataclass(frozen=True)
class ConvergeRun:
    """One method's record beside the reference it is measured against."""

    setting: Setting
    record: Record
    reference: Reference

    @property
    def metrics(self) -> Table:
        """What was measured; see `ramda_theory.diagnostics.measure`."""
        return self.record.metrics

    @property
    def gap(self) -> np.ndarray:
        """F(What) - F* at the measured steps."""
        return self.metrics["objective"] - self.reference.objective

    def rate(self, name: str = "stationarity") -> Rate | None:
        """Power of t at which a measured quantity falls over the last half of the run (logarithmic scale)."""
        values = self.gap if name == "gap" else self.metrics[name]
        try:
            return fit_rate(self.metrics["step"], values)
        except ValueError:  # fewer than three positive values: converged to rounding level
            return None

    def to_dict(self) -> dict[str, Any]:
        """The entry of ``converge.json``; quantities without a value at a step are null."""
        series = {name: self.metrics[name] for name in self.metrics.names} | {"objective_gap": self.gap}
        rates = {"objective_gap": self.rate("gap"), "stationarity": self.rate()}
        return {
            "method": self.setting.method,
            "settings": self.setting.label,
            "series": {name: [float(v) if np.isfinite(v) else None for v in values] for name, values in series.items()},
            "rates": {
                name: rate and {"exponent": rate.exponent, "uncertainty": rate.uncertainty, "window": rate.window}
                for name, rate in rates.items()
            },
        }


def converge(
    problem: str | Problem = "digits",
    *,
    weight: float | None = None,
    methods: Sequence[str] = ("RAMDA", "RMDA", "ProxSGD", "ProxAdamW"),
    epochs: int = 100,
    batch: int | None = 64,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = False,
    command: str | None = None,
) -> list[ConvergeRun]:
    """Run methods and measure objective gap, stationarity and the terms of (28) along the way.

    Parameters
    ----------
    problem : str or Problem
        A name of `ramda_theory.problems.PROBLEMS`, or a problem.
    weight : float, optional
        lambda of a named problem.
    methods : sequence of str
        Items such as ``"RAMDA"`` or ``"RAMDA:lr=1e-1,averaging=0.1,milestones=20/40,grow=true"``.
    epochs : int
        Passes over the samples (steps, with full gradients).
    batch : int, optional
        Samples per gradient, at most all there are; None for full gradients.  PG and FISTA always take full ones, as
        many steps as the rest.
    seed : int
        Of the batches.
    out : path, optional
        Folder for ``converge.json``, ``converge.png`` and the runs, which go on from there if interrupted.
    progress : bool
        Show a bar for each run.
    command : str, optional
        What ``converge.json`` names as the command that made it.

    Returns
    -------
    list of ConvergeRun
    """
    if isinstance(problem, str):
        problem = problem_named(problem, weight)
    elif weight is not None:
        raise ValueError("weight applies to a named problem only; a Problem carries its own regularizer")
    settings = select((), methods, problem)
    sampled = batch is not None and problem.samples is not None
    if sampled:
        integer("batch", batch, 1, problem.samples, f"the samples of {problem.name}")
    oracle = SampledGradient(batch or 1, seed) if sampled else FullGradient()
    per_epoch = oracle.steps_per_epoch(problem)
    steps = integer("epochs", epochs, 1) * per_epoch
    reference = problem.solution()
    finished = []
    for setting in settings:
        method, schedule = setting.build(problem, per_epoch)
        gradients = FullGradient() if setting.method in DETERMINISTIC else oracle
        description = describe(problem, method, schedule, gradients)
        try:
            record = run(
                problem,
                method,
                schedule,
                steps,
                gradients=gradients,
                measure_every=max(1, steps // POINTS),
                checkpoint=None if out is None else checkpoint_path(out, description, steps),
                progress=f"{setting.method} {setting.short_label}" if progress else False,
            ).record
        except ArithmeticError as error:
            raise ArithmeticError(f"{setting.method}, {setting.label}: {error}") from error
        finished.append(ConvergeRun(setting, record, reference))
        if out is not None:
            data = [entry.to_dict() for entry in finished]
            record_figure(out, "converge", command=command, seeds=[seed], data=data)
    if out is not None:
        from ramda_theory.experiments.converge_figure import plot_convergence

        plot_convergence(finished, Path(out) / "converge")
    return finished


def table(runs: Sequence[ConvergeRun]) -> str:
    """Where every run ended, and the powers of t at which it got there (95 % intervals)."""

    def power(rate: Rate | None) -> str:
        return "-" if rate is None else f"{rate.exponent:.2f} +- {rate.uncertainty:.2f}"

    rows = [("method", "setting", "steps", "gap", "dist(0, dF)", "gap ~ t^", "dist ~ t^", "us/step")]
    for entry in runs:
        steps = int(entry.metrics["step"][-1])
        rows.append(
            (
                entry.setting.method,
                entry.setting.label,
                str(steps),
                f"{entry.gap[-1]:.1e}",
                f"{entry.metrics['stationarity'][-1]:.1e}",
                power(entry.rate("gap")),
                power(entry.rate()),
                f"{1e6 * entry.metrics['seconds'][-1] / steps:.0f}",
            )
        )
    return aligned(rows)
