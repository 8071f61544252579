"""The statement on the structure during a run, calibrated: how often it fires, how early, and whether it is right.

Not a claim of the paper but ours.  480 runs on planted problems (two kinds, four margins down to 0.05, four methods and
schedules, fifteen seeds of data and batches), kept in ``runs/online.json``.  Quick runs take one seed of each.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from paper_checks.check import Outcome, Verdict, check
from ramda_theory.diagnostics import OnlineCertificate, identification
from ramda_theory.drawing import line_style, new_figure, style
from ramda_theory.files import write_json
from ramda_theory.methods import NSGD, RAMDA, RMDA, SampledGradient, Schedule
from ramda_theory.problems import Problem, group_lasso, lasso
from ramda_theory.run import run

KEPT = Path("runs/online.json")
MARGINS, SEEDS, STEPS, BATCH = (0.5, 0.2, 0.1, 0.05), range(15), 600, 20
STAGES = (100, 250, 420)
PROBLEMS = {"l1": lasso, "groups": group_lasso}
ENOUGH = 300
"""Fires that the criterion asks for: none wrong then bounds the rate by one per cent."""


class Once(OnlineCertificate):
    """Looks no further once it has fired."""

    def observe(self, step: int, query: np.ndarray, gradient: np.ndarray, w_hat: np.ndarray) -> bool:
        return self.holds if self.fired_at is not None else super().observe(step, query, gradient, w_hat)


def settings(problem: Problem) -> dict[str, tuple[Any, Schedule]]:
    """Methods that identify early, late, and perhaps not at all."""
    psi, unit = problem.regularizer, 1.0 / (problem.lipschitz or 1.0)
    return {
        "NSGD, stages": (NSGD(psi, 20 * unit), Schedule(unit, milestones=STAGES, gamma=0.2)),
        "NSGD, constant": (NSGD(psi, 20 * unit), Schedule(0.3 * unit)),
        "RAMDA, stages": (RAMDA(psi), Schedule(0.1, milestones=STAGES, gamma=0.2, memory=50, memory_growth=3.0)),
        "RMDA": (RMDA(psi), Schedule(0.3 * unit)),
    }


def rows_of(quick: bool) -> list[dict[str, Any]]:
    """A row per run: T0, the step of the first fire, and how many pieces were stated wrongly then."""
    rows: list[dict[str, Any]] = json.loads(KEPT.read_text()) if KEPT.exists() and not quick else []
    done = {(row["problem"], row["margin"], row["seed"], row["method"]) for row in rows}
    for seed, (name, make), margin in product(list(SEEDS)[: 1 if quick else None], PROBLEMS.items(), MARGINS):
        problem = make(margin=margin, seed=seed)
        best = problem.solution().structure
        for method, (made, schedule) in settings(problem).items():
            if (name, margin, seed, method) in done:
                continue
            gradients = SampledGradient(BATCH, seed)
            online = Once(problem, gradients.steps_per_epoch(problem))
            record = run(problem, made, schedule, STEPS, gradients=gradients, online=online).record
            found = identification(record.structures_hat, best)
            wrong = None
            if online.fired_at is not None and online.proposal is not None:
                wrong = problem.regularizer.structure(online.proposal).distance(best)
            row = {"problem": name, "margin": margin, "seed": seed, "method": method, "T0": found.time}
            rows.append({**row, "fired": online.fired_at, "wrong": wrong})
        if not quick:
            write_json(KEPT, rows)
    return rows


@check(
    "online_statement",
    claim="A statement by the model statistic at z >= 4 is never wrong, and comes soon after T0 (ours)",
    kind="qualitative",
    criterion="at least 300 fires, none on a wrong support; fires in 80 % of the identified runs, median <= 1.2 T0",
    expected="fails",
)
def statement(quick: bool) -> Outcome:
    """Problem: planted LASSO and group LASSO, 200 samples, batches of 20, margins 0.5 to 0.05.
    Claim: gradients at the point itself, over five epochs, settle the structure while the run goes on.
    Algorithm: NSGD, RAMDA and RMDA with and without stages, watched by OnlineCertificate.
    Theorem: none.
    Reference: ours.
    Failure would mean: the statement may be wrong, or comes too late or too seldom to begin a second phase with.
    """
    rows = rows_of(quick)
    fires = [row for row in rows if row["fired"] is not None]
    wrong = sum(row["wrong"] > 0 for row in fires)
    identified = [row for row in rows if row["T0"] is not None]
    timed = [row for row in identified if row["fired"] is not None]
    share = len(timed) / max(len(identified), 1)
    ratios = [row["fired"] / row["T0"] for row in timed]
    early = sum(row["fired"] < row["T0"] for row in timed)
    median = float(np.median(ratios)) if ratios else np.inf
    good = not wrong and share >= 0.8 and median <= 1.2
    verdict: Verdict = "fails" if not good else "holds" if len(fires) >= ENOUGH else "not decided"
    with style():
        figure = new_figure(4.8, 3.4)
        axis = figure.subplots()
        for index, method in enumerate(dict.fromkeys(row["method"] for row in timed)):
            own = [row for row in timed if row["method"] == method]
            look = {"color": line_style(index)["color"], "fillstyle": "none", "label": method}
            axis.loglog([row["T0"] for row in own], [row["fired"] for row in own], "os^D"[index % 4], **look)
        line = np.array([1, STEPS])
        axis.plot(line, line, color="#8c8c8c", linewidth=0.8)
        axis.set(xlabel="T0", ylabel="step of the first fire")
        axis.legend()
    by_margin = {
        f"margin {margin:g}": {
            "identified": sum(row["margin"] == margin for row in identified),
            "fired": sum(row["margin"] == margin for row in fires),
            "wrong": sum(row["margin"] == margin and row["wrong"] > 0 for row in fires),
        }
        for margin in MARGINS
    }
    return Outcome(
        verdict,
        {
            "runs": len(rows),
            "fires": len(fires),
            "wrong": wrong,
            "identified": len(identified),
            "share fired": share,
            "median time / T0": median,
            "before T0": early,
            **by_margin,
        },
        f"{len(fires)} fires in {len(rows)} runs, {wrong} on a wrong support; fired in {share:.0%} of the "
        f"{len(identified)} identified runs, at {median:.2f} T0 (median), {early} before T0",
        {"online_statement": figure},
    )


CHECKS = (statement,)
