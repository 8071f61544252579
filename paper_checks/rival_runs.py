"""Runs of all methods on the digits, tuned by one rule: 24 settings each, on one seed; other seeds are reported.

The rule: the fewest pixels unlike the optimum's at the end, then the earliest T0, then the smallest gap.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ramda_theory.diagnostics import changes_per_epoch, identification
from ramda_theory.files import write_json
from ramda_theory.methods import NSGD, RAMDA, RDA, RMDA, ProxGen, ProxSGD, SampledGradient, Schedule
from ramda_theory.problems import Problem, digits
from ramda_theory.run import Diverged, run

WEIGHTS = (5e-3, 1.01e-3)
"""Easy (28 pixels, margin 0.058) and hard (37 pixels, margin 0.031)."""

BATCH, PER_EPOCH, STEPS = 64, 28, 8400
STAGES, GAMMA = tuple(PER_EPOCH * epoch for epoch in (10, 40, 120, 220)), 0.2
TUNING_SEED, SEEDS = 0, (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Decay:
    """c / k^q at step k."""

    c: float
    q: float

    def __call__(self, k: int) -> float:
        return self.c / k**self.q


@dataclass(frozen=True)
class Candidate:
    """A setting of a method: how to make it for a problem, its schedule, and how far its gradient estimate remembers.

    Attributes
    ----------
    method, label : str
    make : callable
        psi -> method.
    schedule : Schedule
    memory : float
        Effective number of gradients in the estimate at the end of the run, (sum w)^2 / sum w^2 of their weights w.
    """

    method: str
    label: str
    make: Callable[[Any], Any]
    schedule: Schedule
    memory: float


def exponential(c: float) -> float:
    """Effective number of gradients in an average with weights c (1 - c)^k, at most those of the run."""
    return min((2.0 - c) / c if c < 1 else 1.0, float(STEPS))


def dual_schedules(lr: float) -> list[tuple[str, Schedule, float]]:
    """For dual averaging: no stages, and stages whose restarts keep 200 steps, constantly or growing."""
    found: list[tuple[str, Schedule, float]] = []
    for c in (1.0, 0.3):
        found.append((f"lr {lr:g}, averaging {c:g}", Schedule(lr, c), 8 / 9 * STEPS))
        for growth in (1.0, 3.0, 5.0):
            schedule = Schedule(lr, c, 1e-6, STAGES, GAMMA, 200, c < 1, memory_growth=growth)
            kept = f"memory 200{f' x {growth:g}' if growth > 1 else ''}"
            label = f"lr {lr:g}, averaging {c:g}{' -> 1' if c < 1 else ''}, stages, {kept}"
            found.append((label, schedule, 8 / 9 * (schedule.memory_at(STEPS) + STEPS - STAGES[-1])))
    return found


def plain_schedules(lr: float) -> list[tuple[str, Schedule]]:
    """For the others: constant, and the same stages' decay."""
    return [(f"lr {lr:g}", Schedule(lr)), (f"lr {lr:g}, stages", Schedule(lr, milestones=STAGES, gamma=GAMMA))]


def candidates() -> dict[str, list[Candidate]]:
    """Method -> 24 settings."""
    found: dict[str, list[Candidate]] = {}

    def add(method: str, label: str, make: Callable[[Any], Any], schedule: Schedule, memory: float) -> None:
        found.setdefault(method, []).append(Candidate(method, label, make, schedule, memory))

    for lr in (0.03, 0.1, 0.3):
        for label, schedule, memory in dual_schedules(lr):
            add("RAMDA", label, RAMDA, schedule, memory)
    for lr in (0.3, 1.0, 3.0):
        for label, schedule, memory in dual_schedules(lr):
            add("RMDA", label, RMDA, schedule, memory)
    for lr in (0.3, 3.0, 30.0):
        for label, schedule, memory in dual_schedules(lr):
            add("RDA", label, RDA, schedule, memory)
    for lr, c in product((0.1, 0.3, 1.0, 3.0), (0.1, 0.03, 0.01)):
        for label, schedule in plain_schedules(lr):
            schedule = Schedule(lr, c, milestones=schedule.milestones, gamma=GAMMA)
            add("ProxSGD", f"{label}, averaging {c:g}", ProxSGD, schedule, exponential(c))
    for lr, beta in product((1e-3, 3e-3, 1e-2, 3e-2), (0.9, 0.97, 0.99)):
        for label, schedule in plain_schedules(lr):

            def adamw(psi: Any, beta: float = beta) -> ProxGen:
                return ProxGen(psi, (beta, 0.999))

            add("ProxAdamW", f"{label}, beta {beta:g}", adamw, schedule, exponential(1 - beta))
    for a, tau in product((2.0, 6.0, 20.0), (100.0, 300.0, 1000.0, 3000.0)):

        def normal(psi: Any, tau: float = tau) -> NSGD:
            return NSGD(psi, tau)

        staged = Schedule(a, milestones=STAGES, gamma=GAMMA)
        last = a * GAMMA ** len(STAGES)
        add("NSGD", f"a {a:g}, tau {tau:g}, stages", normal, staged, exponential(last / tau))
        decay = Decay(10 * a, 0.5)
        add("NSGD", f"a {10 * a:g}/sqrt k, tau {tau:g}", normal, Schedule(decay), exponential(decay(STEPS) / tau))
    return found


@cache
def problem(weight: float) -> Problem:
    """The digits, whose solution is computed once."""
    return digits(weight=weight)


def measured(candidate: Candidate, weight: float, seed: int, steps: int = STEPS) -> dict[str, Any]:
    """T0 (None: never), wrong pixels at the end, gap, flips per epoch in the last tenth, memory."""
    on = problem(weight)
    row = {"method": candidate.method, "setting": candidate.label, "weight": weight, "seed": seed}
    try:
        result = run(
            on, candidate.make(on.regularizer), candidate.schedule, steps, gradients=SampledGradient(BATCH, seed)
        )
    except Diverged:
        return {**row, "T0": None, "wrong": 64, "gap": None, "flips": None, "memory": candidate.memory}
    found = identification(result.record.structures_hat, on.solution().structure)
    flips = changes_per_epoch(result.record.structures_hat, PER_EPOCH)
    return {
        **row,
        "T0": found.time,
        "wrong": found.final_error,
        "gap": on.objective(result.state.w_hat) - on.solution().objective,
        "flips": float(np.mean(flips[-max(len(flips) // 10, 1) :])),
        "memory": candidate.memory,
    }


def order(row: dict[str, Any]) -> tuple[float, float, float]:
    """The rule of tuning: smaller is better."""
    never = row["T0"] is None
    return (row["wrong"] or int(never), np.inf if never else row["T0"], np.inf if row["gap"] is None else row["gap"])


def tuned_runs(quick: bool, kept: Path | None = None) -> list[dict[str, Any]]:
    """The rows of all settings on the tuning seed and of the best ones on the others; ``kept`` is a file to go on from.

    Quick: every fourth setting, the easy weight, a fifth of the seeds.
    """
    rows: list[dict[str, Any]] = json.loads(kept.read_text()) if kept is not None and kept.exists() else []
    done = {(row["method"], row["setting"], row["weight"], row["seed"]): row for row in rows}

    def row_of(candidate: Candidate, weight: float, seed: int) -> dict[str, Any]:
        key = candidate.method, candidate.label, weight, seed
        if key not in done:
            done[key] = measured(candidate, weight, seed)
            if kept is not None:
                write_json(kept, list(done.values()))
        return done[key]

    for weight in WEIGHTS[:1] if quick else WEIGHTS:
        for settings in candidates().values():
            settings = settings[::4] if quick else settings
            best = min(settings, key=lambda each: order(row_of(each, weight, TUNING_SEED)))
            for seed in SEEDS[:1] if quick else SEEDS:
                row_of(best, weight, seed)
    return list(done.values())
