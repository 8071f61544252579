"""Restarts: the published one forgets all gradients and loses the structure; one that keeps their averages does not.

Not a claim of the paper but ours.  Quick runs take the planted LASSO only, three seeds, two margins and two memory
lengths, and 120 epochs of one seed of the digits.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from paper_checks.check import Outcome, check
from paper_checks.structure_runs import (
    Factory,
    errors,
    planted_groups,
    planted_lasso,
    recorded,
    right_from,
)
from ramda_theory.drawing import COLOURS, line_style, new_figure, style
from ramda_theory.methods import RAMDA, SampledGradient, Schedule
from ramda_theory.problems import digits
from ramda_theory.run import run

MEMORIES = (0, 20, 200, 1000)
MARGINS = (0.5, 0.2, 0.05)
STEPS, MILESTONES = 1600, (400, 800, 1200)
SETTLED = 20
"""Steps for which the structure must have been right before a restart for the restart to be counted."""

HORIZON = 100
"""Steps after a restart in which the structure must stay right for it to count as kept."""

WEIGHTS = (5e-3, 1.01e-3)
DIGITS = {
    "stages of the experiments": ((60, 120, 180, 240), 0.1, 0.1, True),
    "early stages": ((10, 30, 70, 150), 0.3, 1.0, False),
}
"""Milestones in epochs, decay, averaging, and whether it grows to 1 in the last stage."""


class Restarted(NamedTuple):
    """A run with restarts: its structure errors and the steps after which stages began."""

    problem: str
    margin: float
    memory: int
    wrong: np.ndarray
    milestones: tuple[int, ...]

    @property
    def kept(self) -> list[bool]:
        """For every restart at a settled, right structure: whether it stayed right."""
        return [
            not np.any(self.wrong[step : step + HORIZON])
            for step in self.milestones
            if not np.any(self.wrong[step - SETTLED : step])
        ]


@cache
def planted_runs(quick: bool) -> list[Restarted]:
    """RAMDA on planted problems: lr 0.03, times 0.3 at each of three restarts."""
    factories: dict[str, tuple[Factory, int]] = {"l1": (planted_lasso, 3 if quick else 10)}
    if not quick:
        factories["group"] = (planted_groups, 5)
    result = []
    for name, (make, seeds) in factories.items():
        for margin in MARGINS[::2] if quick else MARGINS:
            for memory in MEMORIES[::2] if quick else MEMORIES:
                schedule = Schedule(0.03, milestones=MILESTONES, gamma=0.3, memory=memory)
                for seed in range(seeds):
                    problem = make(margin, seed)
                    record = recorded(problem, RAMDA(problem.regularizer), schedule, STEPS, seed)
                    result.append(Restarted(name, margin, memory, errors(record, problem), MILESTONES))
    return result


@cache
def digits_runs(quick: bool) -> dict[tuple[str, float, int, int], Restarted]:
    """RAMDA on the digits by (stages, weight, memory, seed), lr 0.1, 300 epochs (quick: 120) of batches of 64."""
    result = {}
    steps = 28 * (120 if quick else 300)
    for weight in WEIGHTS:
        problem = digits(weight=weight)
        for stages, (epochs, gamma, averaging, grow) in DIGITS.items():
            if quick and grow:
                continue
            for memory in (0, 200):
                for seed in range(1 if quick else 2):
                    milestones = tuple(28 * epoch for epoch in epochs if 28 * epoch < steps)
                    schedule = Schedule(
                        0.1, averaging, milestones=milestones, gamma=gamma, memory=memory, grow_averaging=grow
                    )
                    gradients = SampledGradient(64, seed)
                    record = run(problem, RAMDA(problem.regularizer), schedule, steps, gradients=gradients).record
                    wrong = errors(record, problem)
                    key = stages, weight, memory, seed
                    result[key] = Restarted("digits", problem.solution().margin, memory, wrong, milestones)
    return result


def share_kept(runs: list[Restarted]) -> tuple[int, int]:
    """Restarts at a settled right structure after which it stayed right, and how many there were."""
    kept = [outcome for entry in runs for outcome in entry.kept]
    return sum(kept), len(kept)


@check(
    "restarts_lose",
    claim="The published restart (V = U = 0) loses an identified structure (ours)",
    kind="qualitative",
    criterion="of the restarts at a structure right for 20 steps, at least 90 % make it wrong within 100 steps",
)
def lose(quick: bool) -> Outcome:
    """Problem: planted LASSO and group LASSO, margins 0.5, 0.2, 0.05; digits with weights 5e-3 and 1.01e-3.
    Claim: after a restart V/alpha is one noisy gradient, which does not respect the manifold.
    Algorithm: RAMDA with the restart of Appendix A.1 (memory 0).
    Theorem: none; Theorem 3 counts from the last restart.
    Reference: Huang & Lee, arXiv:2403.14398, Appendix A.1; the claim is ours.
    Failure would mean: nothing is lost at a restart, and memory would be superfluous.
    """
    runs = [entry for entry in planted_runs(quick) if entry.memory == 0]
    runs += [entry for entry in digits_runs(quick).values() if entry.memory == 0]
    kept, total = share_kept(runs)
    back = [
        right_from(entry.wrong[step : step + 400])
        for entry in runs
        if entry.problem != "digits"
        for step in entry.milestones
    ]
    shown = next(iter(digits_runs(quick).values()))
    stages = next(iter(digits_runs(quick)))
    other = digits_runs(quick)[(*stages[:2], 200, 0)]
    with style():
        figure = new_figure(5.4, 3.2)
        axes = figure.subplots()
        for index, entry in enumerate((shown, other)):
            steps = np.arange(1, len(entry.wrong) + 1)
            axes.plot(steps, entry.wrong, label=f"memory {entry.memory}", linewidth=1.3, **line_style(index))
        for step in shown.milestones:
            axes.axvline(step, color="#8c8c8c", linewidth=0.8, linestyle=(0, (1, 2)))
        axes.plot([], [], color="#8c8c8c", linestyle=(0, (1, 2)), label="restart")
        axes.set_yscale("symlog", linthresh=2)
        axes.set_yticks([0, 1, 2, 5, 10, 20, 40], ["0", "1", "2", "5", "10", "20", "40"])
        axes.minorticks_off()
        axes.set(xlabel="iteration t", ylabel="pixels unlike the optimum's")
        axes.set_title(f"Digits, {stages[0]}, weight {stages[1]:g}")
        axes.legend()
    return Outcome(
        "holds" if total and (total - kept) / total >= 0.9 else "fails",
        {"restarts at a right structure": total, "kept": kept, "steps until right again (planted)": sorted(back)},
        f"{total - kept} of {total} restarts lost the structure; on the planted problems it took {np.median(back):.0f} "
        f"steps (median; {max(back)} at most) to be right again",
        {"restarts_lose": figure},
    )


@check(
    "restarts_memory",
    claim="A restart that keeps the averages V/alpha and U/alpha as if 200 steps were seen keeps the structure (ours)",
    kind="qualitative",
    criterion="with memory 200 at most 10 % of the restarts at a right structure make it wrong within 100 steps",
)
def memory(quick: bool) -> Outcome:
    """Problem: as in restarts_lose.
    Claim: the averages are what identifies; they survive the change of anchor, lr and eps.
    Algorithm: RAMDA whose restarts set t = m, alpha = sum_{k <= m} eta sqrt(k) and keep V/alpha and U/alpha.
    Theorem: none; it changes finitely many weights, so Theorems 2 and 3 hold as before.
    Reference: ours.
    Failure would mean: it is not the forgetting of gradients that costs the structure.
    """
    groups: dict[tuple[str, float], dict[int, tuple[int, int]]] = {}
    runs = planted_runs(quick) + list(digits_runs(quick).values())
    for entry in runs:
        group = groups.setdefault((entry.problem, round(entry.margin, 3)), {})
        kept, total = group.get(entry.memory, (0, 0))
        group[entry.memory] = kept + sum(entry.kept), total + len(entry.kept)
    shares = {
        length: share_kept([entry for entry in runs if entry.memory == length])
        for length in sorted({entry.memory for entry in runs})
    }
    kept, total = shares[200]
    with style():
        figure = new_figure(5.4, 3.4)
        axes = figure.subplots()
        names = [key for key, group in groups.items() if any(total for _, total in group.values())]
        for index, key in enumerate(names):
            points = {length: kept / total for length, (kept, total) in groups[key].items() if total}
            axes.plot(
                [max(length, 4) * 1.04 ** (index - len(names) / 2) for length in points],
                list(points.values()),
                marker="os^Dv*P<"[index % 8],
                markersize=5,
                label=f"{key[0]}, margin {key[1]:g}",
                **line_style(index),
            )
        axes.set_xscale("log")
        axes.set_xticks([4, 20, 200, 1000], ["0", "20", "200", "1000"])
        axes.minorticks_off()
        axes.set(xlabel="memory (steps)", ylabel="share of restarts that keep a right structure", ylim=(-0.03, 1.03))
        axes.legend()
    return Outcome(
        "holds" if total and (total - kept) / total <= 0.1 else "fails",
        {
            "kept, of": {f"memory {length}": list(counts) for length, counts in shares.items()},
            "by problem": {
                f"{name}, margin {margin:g}": {f"memory {length}": list(counts) for length, counts in group.items()}
                for (name, margin), group in groups.items()
            },
        },
        "kept: " + ", ".join(f"{kept} of {total} (memory {length})" for length, (kept, total) in shares.items()),
        {"restarts_memory": figure},
    )


@check(
    "restarts_time",
    claim="With memory 200 the structure is right for good earlier than with the published restart (ours)",
    kind="qualitative",
    criterion="the median T0 over seeds is smaller in every case where the run with memory 0 identifies before the end",
)
def earlier(quick: bool) -> Outcome:
    """Problem: as in restarts_lose.
    Claim: T0 need not wait for the last restart.
    Algorithm: RAMDA with memory 0 and 200.
    Theorem: T0 of Theorem 3.
    Reference: ours.
    Failure would mean: keeping the averages only moves the loss elsewhere.
    """
    times: dict[str, dict[int, list[int]]] = {}
    lengths: dict[str, int] = {}
    labelled = [(f"{entry.problem}, margin {entry.margin:g}", entry) for entry in planted_runs(quick)]
    labelled += [(f"digits {key[1]:g}, {key[0]}", entry) for key, entry in digits_runs(quick).items()]
    for label, entry in labelled:
        if entry.memory in (0, 200):
            times.setdefault(label, {}).setdefault(entry.memory, []).append(right_from(entry.wrong))
            lengths[label] = len(entry.wrong)
    medians = {
        label: {length: float(np.median(own)) for length, own in group.items()} for label, group in times.items()
    }
    judged = [label for label, group in medians.items() if group[0] <= lengths[label]]
    better = [label for label in judged if medians[label][200] < medians[label][0]]
    unhelped = [label for label, group in medians.items() if group[200] > 0.8 * group[0]]
    with style():
        figure = new_figure(7.2, 0.45 * len(times) + 1.2)
        axes = figure.subplots()
        for row, (label, group) in enumerate(times.items()):
            for index, length in enumerate((0, 200)):
                values = np.array(group[length]) / lengths[label]
                height = row + (0.12 if index else -0.12) + 0 * values
                axes.plot(np.minimum(values, 1.02), height, "o^"[index], color=COLOURS[index], markersize=4, alpha=0.7)
        for index, length in enumerate((0, 200)):
            axes.plot([], [], "o^"[index], color=COLOURS[index], label=f"memory {length}")
        axes.axvline(1.0, color="#8c8c8c", linewidth=0.8)
        axes.set_yticks(range(len(times)), list(times))
        axes.invert_yaxis()
        axes.set(xlabel="T0 / length of the run (beyond the line: not right at the end)")
        figure.legend(loc="outside lower center", ncols=2)
    measured: dict[str, Any] = {"median T0": medians, "T0": times, "not helped": unhelped}
    return Outcome(
        "holds" if better == judged else "fails",
        measured,
        f"earlier in {len(better)} of {len(judged)} cases: "
        + ", ".join(f"{label} {group[0]:.0f} -> {group[200]:.0f}" for label, group in medians.items())
        + (f"; little or no help: {'; '.join(unhelped)}" if unhelped else ""),
        {"restarts_time": figure},
    )


CHECKS = (lose, memory, earlier)
