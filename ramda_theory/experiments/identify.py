"""The main job: when does each method find exactly the structure of the known optimum?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ramda_theory.arrays import integers
from ramda_theory.checkpoint import describe
from ramda_theory.diagnostics import Certificate, Identification, Record, StructureTrace, certify, identification
from ramda_theory.drawing.provenance import record_figure
from ramda_theory.experiments.settings import Setting, checkpoint_path, problem_named, select
from ramda_theory.methods import FullGradient, SampledGradient
from ramda_theory.problems import Problem, Reference
from ramda_theory.run import Diverged, run
from ramda_theory.structure import Structure
from ramda_theory.tables import aligned

STAGES, EARLY = (60, 120, 180, 240), (10, 40, 120, 220)
EPOCHS, QUICK_EPOCHS, BATCH = 300, 100, 64

SETTINGS = (
    Setting("RAMDA", 1e-2),
    Setting("RAMDA", 1e-2, 0.1),
    Setting("RAMDA", 1e-1, 0.1, STAGES, grow=True),
    Setting("RAMDA", 1e-1, 0.1, STAGES, grow=True, memory=200),
    Setting("RAMDA", 1e-1, 0.3, EARLY, 0.2, 200, True, growth=3.0),
    Setting("RMDA", 1.0),
    Setting("RDA", 30.0),
    Setting("NSGD", 6.0, milestones=EARLY, gamma=0.2, prox=300.0),
    Setting("NSGD", 6.0, prox=300.0),
    Setting("ProxSGD", 1.0, 0.1),
    Setting("ProxSGD", 1.0, 0.1, STAGES),
    Setting("ProxSGD", 0.1, 0.1),
    Setting("ProxSGD", 0.1, 0.1, STAGES),
    Setting("ProxSGD", 1.0, 0.01, STAGES),
    Setting("ProxAdamW", 1e-2),
    Setting("ProxAdamW", 1e-2, milestones=STAGES),
    Setting("ProxAdamW", 1e-3),
    Setting("ProxAdamW", 1e-3, milestones=STAGES),
)
"""What is compared: settings that identify the digits' pixels and settings that do not."""


@dataclass(frozen=True)
class IdentifyRun:
    """One method, setting and seed, beside the reference it is held against."""

    setting: Setting
    seed: int
    record: Record
    reference: Reference
    target: Structure
    diverged: bool = False
    certificate: Certificate | None = None

    @property
    def w_hat(self) -> Identification:
        """Of What."""
        return self._identification(self.record.structures_hat)

    @property
    def w(self) -> Identification:
        """Of W."""
        return self._identification(self.record.structures_w)

    def _identification(self, trace: StructureTrace) -> Identification:
        found = identification(trace, self.target)
        return replace(found, time=None, held_for=0) if self.diverged else found

    @property
    def gap(self) -> float | None:
        """F(What) - F* at the end; None if the run diverged."""
        return None if self.diverged else float(self.record.metrics["objective"][-1]) - self.reference.objective

    def to_dict(self) -> dict[str, Any]:
        """The entry of ``identify.json``."""
        proved = {} if self.certificate is None else {"certificate": self._certified()}
        return {
            "method": self.setting.method,
            "settings": self.setting.label,
            "seed": self.seed,
            "iterations": self.w_hat.steps,
            "identification_time": self.w_hat.time,
            "identification_time_w": self.w.time,
            "final_structure_error": self.w_hat.final_error,
            "final_structure_error_w": self.w.final_error,
            "held_for": self.w_hat.held_for,
            "objective_gap": self.gap,
            "nondegeneracy_margin": self.reference.margin,
            **proved,
        }

    def _certified(self) -> dict[str, Any]:
        found = self.certificate
        assert found is not None
        return {
            "verdict": found.verdict,
            "passes": found.passes,
            "added": found.added,
            "removed": found.removed,
            "gap": found.gap if math.isfinite(found.gap) else None,
        }


def identify(
    problem: str | Problem = "digits",
    *,
    weight: float | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    methods: Sequence[str] | None = None,
    quick: bool = False,
    out: str | Path | None = None,
    progress: bool = False,
    command: str | None = None,
    on_run: Callable[[IdentifyRun], None] | None = None,
    certified: bool = False,
) -> list[IdentifyRun]:
    """Run methods on a problem and find the iteration at which each has its optimum's structure for good.

    Parameters
    ----------
    problem : str or Problem
        A name of `ramda_theory.problems.PROBLEMS`, or a problem.
    weight : float, optional
        lambda of a named problem.
    seeds : sequence of int
        Of the batches.
    methods : sequence of str, optional
        Method names (all their settings in `SETTINGS`) or items such as ``"RAMDA:lr=1e-2,averaging=0.1"``.
    quick : bool
        A third of the epochs, the first seed.
    out : path, optional
        Folder for ``identify.json``, ``identify.png`` and the runs.  Runs found there are not repeated, and an
        unfinished one goes on from its checkpoint.
    progress : bool
        Show a bar for each run.
    command : str, optional
        What ``identify.json`` names as the command that made it.
    on_run : callable, optional
        Called with each finished run.
    certified : bool
        Whether to prove, or repair and prove, the structure each run ends with (`ramda_theory.certify`).

    Returns
    -------
    list of IdentifyRun

    Raises
    ------
    ValueError
        Unknown names, no seeds, values out of range.
    """
    seeds = integers("seeds", seeds)
    if not seeds or min(seeds) < 0:
        raise ValueError(f"seeds must be nonnegative integers, at least one, got {seeds}")
    if isinstance(problem, str):
        problem = problem_named(problem, weight)
    elif weight is not None:
        raise ValueError("weight applies to a named problem only; a Problem carries its own regularizer")
    settings = select(SETTINGS, methods, problem)
    epochs, seeds = (QUICK_EPOCHS, seeds[:1]) if quick else (EPOCHS, seeds)
    reference = problem.solution()
    finished: list[IdentifyRun] = []
    for setting in settings:
        for seed in seeds:
            finished.append(
                _one(problem, setting.scaled(epochs / EPOCHS), seed, epochs, reference, out, progress, certified)
            )
            if on_run is not None:
                on_run(finished[-1])
            if out is not None:
                data = [entry.to_dict() for entry in finished]
                record_figure(out, "identify", command=command, seeds=seeds, data=data)
    if out is not None:
        from ramda_theory.experiments.identify_figure import plot_identification

        plot_identification(problem, finished, Path(out) / "identify")
    return finished


def _one(
    problem: Problem,
    setting: Setting,
    seed: int,
    epochs: int,
    reference: Reference,
    out: str | Path | None,
    progress: bool,
    certified: bool,
) -> IdentifyRun:
    sampled = problem.samples is not None and setting.method not in ("PG", "FISTA")
    gradients = SampledGradient(min(BATCH, problem.samples or 1), seed) if sampled else FullGradient()
    # A run has as many steps whatever an epoch is, so that methods on full gradients are not cut short.
    per_epoch = SampledGradient(min(BATCH, problem.samples)).steps_per_epoch(problem) if problem.samples else 28
    steps = epochs * per_epoch
    method, schedule = setting.build(problem, per_epoch)
    checkpoint = None if out is None else checkpoint_path(out, describe(problem, method, schedule, gradients), steps)
    diverged, proof = False, None
    try:
        result = run(
            problem,
            method,
            schedule,
            steps,
            gradients=gradients,
            measure_every=4 * per_epoch,
            checkpoint=checkpoint,
            progress=f"{setting.method} {setting.label}, seed {seed}" if progress else False,
        )
        record = result.record
        proof = certify(problem, result.state.w_hat) if certified else None
    except Diverged as error:
        record, diverged = error.record, True
        if not len(record.structures_hat):  # in the first step: there is nothing to report
            raise
    # A stationary point that is only approximate has no structure to be held against: then the run's own end is.
    target = reference.structure if reference.certified else record.structures_hat[-1]
    return IdentifyRun(setting, seed, record, reference, target, diverged, proof)


def worst_gap(group: Sequence[IdentifyRun]) -> str:
    """The largest gap of runs that differ in their seed only."""
    gaps = [entry.gap for entry in group if entry.gap is not None]
    return f"{max(gaps):.1e}" if len(gaps) == len(group) else "diverged"


def in_short(found: Certificate | None) -> str:
    """A certificate in a cell."""
    if found is None:
        return "-"
    return f"{found.verdict}: {found.passes}, {found.added} + {found.removed}"


def table(runs: Sequence[IdentifyRun]) -> str:
    """One row per method and setting; where seeds differ, their values follow one another."""
    heading = ["method", "setting", "T0 of w_hat", "T0 of w", "wrong w_hat", "wrong w", "held for", "gap", "margin"]
    proved = any(entry.certificate is not None for entry in runs)
    rows: list[Sequence[str]] = [heading + ["certificate: passes, added + removed"] * proved]
    groups: dict[Setting, list[IdentifyRun]] = {}
    for entry in runs:
        groups.setdefault(entry.setting, []).append(entry)

    def joined(values: Sequence[Any]) -> str:
        texts = ["never" if value is None else str(value) for value in values]
        return texts[0] if len(set(texts)) == 1 else " ".join(texts)

    for setting, group in groups.items():
        rows.append(
            (
                setting.method,
                setting.label,
                joined([entry.w_hat.time for entry in group]),
                joined([entry.w.time for entry in group]),
                joined([entry.w_hat.final_error for entry in group]),
                joined([entry.w.final_error for entry in group]),
                joined([entry.w_hat.held_for for entry in group]),
                worst_gap(group),
                f"{group[0].reference.margin:.3f}",
                *([joined([in_short(entry.certificate) for entry in group])] if proved else []),
            )
        )
    return aligned(rows)
