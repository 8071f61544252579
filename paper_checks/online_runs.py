"""Runs watched by both statements on the structure, statistic and proof; kept, so that a calibration can go on.

The rule (windows and thresholds) was chosen on other seeds than these.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from paper_checks.rival_runs import GAMMA, WEIGHTS
from ramda_theory.diagnostics import OnlineCertificate, identification
from ramda_theory.files import write_json
from ramda_theory.methods import NSGD, RAMDA, RMDA, ProxSGD, SampledGradient, Schedule
from ramda_theory.problems import Problem, digits, group_lasso, lasso
from ramda_theory.run import run

KINDS = ("statistic", "proof")
PLANTED = {"l1": lasso, "groups": group_lasso}
MARGINS = (0.5, 0.2, 0.1, 0.05)
HARD = ((0.05, 100.0, 5), (0.02, 10.0, 5), (0.1, 100.0, 20), (0.2, 30.0, 8))
"""Margin, condition number and batch of the harder planted problems, whose epochs hold more steps or more noise."""
EPOCHS = 60
DIGITS = dict(zip(WEIGHTS, ((6.0, 300.0), (20.0, 3000.0)), strict=True))
"""Weight -> NSGD's step and prox step."""

Method = tuple[Any, Schedule]
read_digits = cache(digits)


class Watchers(OnlineCertificate):
    """Both statements on one run; each looks no further once it has fired."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.each = {
            kind: OnlineCertificate(self.problem, self.steps_per_epoch, proof=kind == "proof") for kind in KINDS
        }
        self.fired: dict[str, tuple[int, int]] = {}

    def observe(self, step: int, query: np.ndarray, gradient: np.ndarray, w_hat: np.ndarray) -> bool:
        """Tell those that have not fired; keep when they do and how many pieces they state wrongly."""
        for kind, online in self.each.items():
            if kind not in self.fired and online.observe(step, query, gradient, w_hat):
                stated = self.problem.regularizer.structure(w_hat)
                self.fired[kind] = step, stated.distance(self.problem.solution().structure)
        return False


@dataclass(frozen=True)
class Case:
    """A problem with its methods; ``name`` and ``seed`` tell it from others."""

    name: str
    seed: int
    make: Callable[[], Problem]
    methods: Callable[[Problem, tuple[int, ...]], dict[str, Method]]
    batch: int
    milestones: tuple[float, ...]


def planted_methods(problem: Problem, stages: tuple[int, ...]) -> dict[str, Method]:
    """Methods that identify early, late, or not at all."""
    psi, unit = problem.regularizer, 1.0 / (problem.lipschitz or 1.0)
    staged: dict[str, Any] = {"milestones": stages, "gamma": GAMMA}
    return {
        "NSGD, stages": (NSGD(psi, 20 * unit), Schedule(unit, **staged)),
        "NSGD, constant": (NSGD(psi, 20 * unit), Schedule(0.3 * unit)),
        "NSGD, slow": (NSGD(psi, 20 * unit), Schedule(0.05 * unit)),
        "RAMDA, stages": (RAMDA(psi), Schedule(0.1, memory=50, memory_growth=3.0, **staged)),
        "RAMDA, forgets": (RAMDA(psi), Schedule(0.1, memory=0, **staged)),
        "RAMDA, slow": (RAMDA(psi), Schedule(0.01)),
        "RMDA": (RMDA(psi), Schedule(0.3 * unit)),
        "RMDA, slow": (RMDA(psi), Schedule(0.03 * unit)),
        "ProxSGD, stages": (ProxSGD(psi), Schedule(0.5 * unit, 0.1, **staged)),
    }


def digits_methods(problem: Problem, stages: tuple[int, ...]) -> dict[str, Method]:
    """The tuned settings of `rival_runs`, and a restart that forgets."""
    psi: Any = problem.regularizer
    step, prox_step = DIGITS[psi.weight]
    return {
        "NSGD, stages": (NSGD(psi, prox_step), Schedule(step, milestones=stages, gamma=GAMMA)),
        "RAMDA, stages": (RAMDA(psi), Schedule(0.1, 0.3, 1e-6, stages, GAMMA, 200, memory_growth=3.0)),
        "RAMDA, forgets": (RAMDA(psi), Schedule(0.1, 0.3, 1e-6, stages, GAMMA, 0)),
        "RMDA, stages": (RMDA(psi), Schedule(1.0, 0.3, 1e-6, stages, GAMMA, 200)),
    }


def cases(quick: bool) -> Iterator[Case]:
    """Planted problems, harder ones, and the digits; a round of each in turn.  Quick: the planted ones, one seed."""
    for round_ in range(1 if quick else 5):
        seed = 20 + round_
        for name, make in PLANTED.items():
            for margin in MARGINS:

                def planted(make: Any = make, seed: int = seed, margin: float = margin) -> Problem:
                    made: Problem = make(margin=margin, seed=seed)
                    return made

                yield Case(f"{name}, margin {margin:g}", seed, planted, planted_methods, 20, (1 / 6, 5 / 12, 7 / 10))
            for margin, condition, batch in HARD if round_ in (1, 2, 3) else ():

                def hard(
                    make: Any = make, seed: int = seed, margin: float = margin, condition: float = condition
                ) -> Problem:
                    made: Problem = make(margin=margin, condition=condition, seed=100 + seed)
                    return made

                label = f"{name}, hard: margin {margin:g}, condition {condition:g}, batch {batch}"
                yield Case(label, seed, hard, planted_methods, batch, (1 / 6, 5 / 12, 7 / 10))
        for weight in WEIGHTS if round_ in (1, 2) else ():
            label = f"digits, lambda {weight:g}"

            def real(weight: float = weight) -> Problem:
                return read_digits(weight)

            yield Case(label, seed, real, digits_methods, 64, (1 / 6, 2 / 3))


def rows_of(quick: bool, kept: Path) -> list[dict[str, Any]]:
    """A row per run: T0, the step of each statement's first fire, and how many pieces were stated wrongly then."""
    rows: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() and not quick else []
    done = {(row["problem"], row["seed"], row["method"]) for row in rows}
    for case in cases(quick):
        problem = case.make()
        best = problem.solution()
        gradients = SampledGradient(case.batch, case.seed)
        per_epoch = gradients.steps_per_epoch(problem)
        steps = EPOCHS * per_epoch
        for method, (made, schedule) in case.methods(
            problem, tuple(int(part * steps) for part in case.milestones)
        ).items():
            if (case.name, case.seed, method) in done:
                continue
            online = Watchers(problem, per_epoch)
            record = run(problem, made, schedule, steps, gradients=gradients, online=online).record
            found = identification(record.structures_hat, best.structure)
            row = {"problem": case.name, "seed": case.seed, "method": method, "margin": best.margin, "T0": found.time}
            row["per_epoch"] = per_epoch
            for kind in KINDS:
                row[kind], row[f"{kind}, wrong"] = online.fired.get(kind, (None, None))
            rows.append(row)
            if not quick:
                write_json(kept, rows)
    return rows
