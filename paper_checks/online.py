"""The statements on the structure during a run, calibrated: how often they fire, how early, and whether they are right.

Not a claim of the paper but ours.  592 runs in full, kept in ``runs/online.json``; quick runs take 72.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from paper_checks.check import Outcome, Verdict, check
from paper_checks.online_runs import rows_of
from ramda_theory.drawing import line_style, new_figure, style

KEPT = Path("runs/online.json")
ENOUGH = 300
"""Fires that the criterion asks for: none wrong then bounds the rate by one per cent."""
KINDS_OF_PROBLEM = {"planted": lambda name: "hard" not in name and "digits" not in name}
KINDS_OF_PROBLEM |= {"hard": lambda name: "hard" in name, "digits": lambda name: "digits" in name}

LABELS = {"planted": "planted", "hard": "planted, hard: condition number 10 to 100", "digits": "digits"}
"""In the figure."""


@cache
def runs(quick: bool) -> list[dict[str, Any]]:
    """The rows, made once for both checks."""
    return rows_of(quick, KEPT)


def summary(rows: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Counts and times of one statement over some runs."""
    fires = [row for row in rows if row[kind] is not None]
    identified = [row for row in rows if row["T0"] is not None]
    timed = [row for row in identified if row[kind] is not None]
    slow = [row[kind] / row["T0"] for row in timed if row["T0"] >= 10 * row["per_epoch"]]
    return {
        "runs": len(rows),
        "identified": len(identified),
        "fires": len(fires),
        "wrong": sum(row[f"{kind}, wrong"] > 0 for row in fires),
        "share fired": len(timed) / max(len(identified), 1),
        "median time / T0": float(np.median([row[kind] / row["T0"] for row in timed])) if timed else None,
        "median where T0 >= 10 epochs": float(np.median(slow)) if slow else None,
        "before T0": sum(row[kind] < row["T0"] for row in timed),
        "in runs that never identify": sum(row["T0"] is None for row in fires),
    }


def judged(quick: bool, kind: str) -> Outcome:
    """The criterion, and a figure of the fires over T0."""
    rows = runs(quick)
    all_, parts = summary(rows, kind), {}
    for name, of in KINDS_OF_PROBLEM.items():
        chosen = [row for row in rows if of(row["problem"])]
        if chosen:
            parts[name] = summary(chosen, kind)
    median = all_["median time / T0"]
    good = not all_["wrong"] and all_["share fired"] >= 0.8 and median is not None and median <= 1.2
    verdict: Verdict = "fails" if not good else "holds" if all_["fires"] >= ENOUGH else "not decided"
    with style():
        figure = new_figure(4.8, 3.4)
        axis = figure.subplots()
        for index, (name, of) in enumerate(KINDS_OF_PROBLEM.items()):
            own = [row for row in rows if of(row["problem"]) and row["T0"] and row[kind] is not None]
            look = {"color": line_style(index)["color"], "fillstyle": "none", "markersize": 3, "label": LABELS[name]}
            if own:
                axis.loglog([row["T0"] for row in own], [row[kind] for row in own], "os^"[index], **look)
        times = [row["T0"] for row in rows if row["T0"]]
        line = np.array([min(times, default=1), max(times, default=1)])
        axis.plot(line, line, color="#8c8c8c", linewidth=0.8, label="step = T0")
        axis.set(xlabel="T0", ylabel="step of the first fire")
        axis.legend()
    by_part = "; ".join(
        f"{name}: {part['fires']} fires, {part['share fired']:.0%}, "
        + ("-" if part["median time / T0"] is None else f"{part['median time / T0']:.2f} T0")
        for name, part in parts.items()
    )
    return Outcome(
        verdict,
        {**all_, **parts},
        f"{all_['fires']} fires in {all_['runs']} runs, {all_['wrong']} on a wrong support; fired in "
        f"{all_['share fired']:.0%} of the {all_['identified']} identified runs, at "
        f"{np.nan if median is None else median:.2f} T0 (median), {all_['before T0']} before T0 and "
        f"{all_['in runs that never identify']} in runs that do not keep it ({by_part})",
        {f"online_{kind}": figure},
    )


@check(
    "online_statistic",
    claim="A statement by the model statistic is never wrong, and comes soon after T0 (ours)",
    kind="qualitative",
    criterion="at least 300 fires, none on a wrong support; fires in 80 % of the identified runs, median <= 1.2 T0",
)
def statistic(quick: bool) -> Outcome:
    """Problem: planted LASSO and group LASSO, margins 0.5 to 0.02, condition numbers to 100, batches 5 to 20; digits.
    Claim: gradients at the point itself, over three to five epochs, settle the structure while the run goes on.
    Algorithm: NSGD, RAMDA, RMDA and ProxSGD, with stages, constant, slow and forgetting, watched by OnlineCertificate.
    Theorem: none.
    Reference: ours.
    Failure would mean: the statement may be wrong, or comes too late or too seldom to begin a second phase with.
    """
    return judged(quick, "statistic")


@check(
    "online_proof",
    claim="A statement by proof, a pass per epoch until it is complete, is never wrong, and comes by T0 (ours)",
    kind="qualitative",
    criterion="at least 300 fires, none on a wrong support; fires in 80 % of the identified runs, median <= 1.2 T0",
)
def proof(quick: bool) -> Outcome:
    """Problem: those of online_statistic.
    Claim: proximal Newton steps beside the run prove its structure about when the run has it.
    Algorithm: those of online_statistic, watched by OnlineCertificate(proof=True).
    Theorem: docs/certificate.md.
    Reference: ours.
    Failure would mean: the proof is false, or takes more epochs than the run takes to identify.
    """
    return judged(quick, "proof")


CHECKS = (statistic, proof)
