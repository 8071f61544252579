"""Theorem 3 for a nonconvex psi (MCP): the subproblem itself becomes nonconvex, and with it the structure is lost.

With P_t/alpha_t -> 0, (22), the term that makes (4) convex vanishes, while MCP keeps its curvature -1/gamma.  An entry
on the curved branch of the planted solution minimises (4) only while gamma P_i/alpha_t >= 1.  An entry at zero with
gradient v_i does so only while gamma P_i/alpha_t >= (v_i/lambda)^2 (the flat branch is lower otherwise), and an entry
w_i on the flat branch only while gamma P_i/alpha_t >= (gamma lambda/w_i)^2 (zero is lower otherwise).

Quick runs take 4 seeds instead of 20.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from paper_checks.check import Outcome, check
from paper_checks.structure_runs import SIGMA, errors, identified, quartiles, recorded, right_from, spells
from paper_checks.theorem_2_limits import convergent
from ramda_theory.drawing import COLOURS, line_style, new_figure, style
from ramda_theory.methods import RAMDA, NoisyGradient, Schedule
from ramda_theory.problems import Problem, mcp
from ramda_theory.regularizers import MCP
from ramda_theory.structure import SignPattern

STEPS = 6000
PERIOD, MEMORY = 100, 50


def planted_mcp(seed: int) -> Problem:
    """50 entries, 10 nonzero, half of them on the flat branch; margin 0.2; F is strictly convex, psi is not."""
    return mcp(weight=0.1, gamma=50.0, seed=seed)


def seeds(quick: bool) -> range:
    """Of data and noise."""
    return range(4 if quick else 20)


@dataclass(frozen=True)
class Followed:
    """A run: its structure errors, and the first steps at which curved, or zero or flat, entries do not minimise (4).

    The latter is predicted with V/alpha = grad f(w*) and What = w*; a step beyond the run means never.
    """

    wrong: np.ndarray
    curved_lost: int
    other_lost: int

    @property
    def predicted(self) -> int:
        """The first step at which the planted structure does not minimise (4)."""
        return min(self.curved_lost, self.other_lost)

    @property
    def last_right(self) -> int:
        """The last step with the planted structure, 0 if there is none."""
        right = np.flatnonzero(self.wrong == 0)
        return int(right[-1]) + 1 if len(right) else 0


def least_convexity(problem: Problem) -> np.ndarray:
    """The smallest gamma P_i/alpha at which each entry of the planted solution minimises (4)."""
    psi, solution = problem.regularizer, problem.solution()
    assert isinstance(psi, MCP) and isinstance(solution.structure, SignPattern)
    branch, breakpoint = np.abs(solution.structure.pattern), psi.gamma * psi.weight
    at_zero = (problem.gradient(solution.point) / psi.weight) ** 2
    on_flat = (breakpoint / np.where(branch == 2, solution.point, breakpoint)) ** 2
    return np.where(branch == 0, at_zero, np.where(branch == 1, 1.0, on_flat))


@cache
def followed(seed: int) -> Followed:
    """The exactly solved run under the schedule of theorem_2_limits."""
    problem = planted_mcp(seed)
    psi, solution = problem.regularizer, problem.solution()
    assert isinstance(psi, MCP)
    structure = solution.structure
    assert isinstance(structure, SignPattern)
    on_curve, least = np.abs(structure.pattern) == 1, least_convexity(problem)
    method, schedule, gradients = RAMDA(psi), convergent(), NoisyGradient(SIGMA, seed)
    state, wrong = method.init(problem.initial), []
    curved: list[bool] = []
    other: list[bool] = []
    for t in range(1, STEPS + 1):
        state, _ = method.step(state, gradients(problem, state.query, t), schedule.at(t))
        wrong.append(psi.structure(state.w_hat).distance(structure))
        assert state.metric is not None
        convexity = psi.gamma * state.metric / state.weight_sum
        lost = convexity < least
        curved.append(bool(np.any(lost[on_curve])))
        other.append(bool(np.any(lost[~on_curve])))
    first = [int(np.argmax([*flags, True])) + 1 for flags in (curved, other)]
    return Followed(np.array(wrong), *first)


@check(
    "theorem_3_mcp",
    claim="What_t is on the manifold of the planted solution for all t >= T0, a finite number: MCP",
    kind="qualitative",
    criterion="in every run What_t has the planted structure over the whole second half",
    expected="fails",
    fault="the method: as P/alpha vanishes, (22), the planted point stops minimising its own (4). Each of 19 runs "
    "loses the structure at 0.98 to 1.43 of the step predicted from that, median 0.997 (theorem_3_mcp_loss); restarts "
    "that hold P/alpha above the bound identify in 20 of 20 (theorem_3_mcp_restarts). The theorem is not "
    "contradicted: What_t does not converge to Wbar, which it assumes.",
)
def nonconvex(quick: bool) -> Outcome:
    """Problem: least squares with MCP (lambda 0.1, gamma 50), condition number 10, margin 0.2, 20 seeds.
    Claim: Theorem 3 covers weakly convex psi; What_t identifies the planted minimiser's branches and zeros.
    Algorithm: RAMDA with the schedule of theorem_2_limits, which serves l1; exact (global) solutions of (4).
    Theorem: Theorem 3.
    Reference: Huang & Lee, arXiv:2403.14398, Section 5.
    Failure would mean: {What_t} -> Wbar, as assumed, cannot hold: Wbar stops to minimise (4) as P/alpha -> 0.
    """
    runs = {seed: followed(seed).wrong for seed in seeds(quick)}
    longest = {
        seed: max(spells(wrong), key=lambda spell: spell[1] - spell[0], default=(0, 0)) for seed, wrong in runs.items()
    }
    found = sum(map(identified, runs.values()))
    firsts, lasts = ([spell[side] for spell in longest.values()] for side in (0, 1))
    final = [int(wrong[-1]) for wrong in runs.values()]
    with style():
        figure = new_figure(5.4, 3.2)
        axes = figure.subplots()
        for index, seed in enumerate(list(runs)[:3]):
            axes.semilogx(np.arange(1, STEPS + 1), runs[seed], label=f"seed {seed}", linewidth=1.4, **line_style(index))
            axes.axvline(followed(seed).predicted, color=COLOURS[index], linewidth=0.8, linestyle=(0, (1, 2)))
        axes.plot([], [], color="#8c8c8c", linestyle=(0, (1, 2)), label=r"predicted: $\gamma P_i/\alpha_t$ too small")
        axes.set_yscale("symlog", linthresh=2)
        axes.set_yticks([0, 1, 2, 5, 10, 20, 40], ["0", "1", "2", "5", "10", "20", "40"])
        axes.minorticks_off()
        axes.set(xlabel="iteration t", ylabel="wrong entries of $\\hat{W}_t$", title="MCP: found, kept, and lost")
        axes.legend()
    return Outcome(
        "holds" if found == len(runs) else "fails",
        {"identified": found, "runs": len(runs), "right from": firsts, "right until": lasts, "wrong at the end": final},
        f"{found} of {len(runs)} runs identified; the structure was right from step {np.median(firsts):.0f} to step "
        f"{np.median(lasts):.0f} (medians of the longest spell), and {min(final)} to {max(final)} entries are wrong at "
        f"the end ({STEPS}).  (4) is nonconvex once P/alpha < 1/gamma, and then Wbar is no minimiser of it",
        {"theorem_3_mcp": figure},
    )


@check(
    "theorem_3_mcp_loss",
    claim="The structure is lost when gamma P_i/alpha_t < 1 on the curved branch, or when an entry at zero or on the "
    "flat branch is no longer the lowest choice (ours)",
    kind="tight",
    criterion="no run is right once the former has happened, and the median of last right step / first of the two "
    "(where the run contains it) is within 10 % of 1",
)
def loss(quick: bool) -> Outcome:
    """Problem: as in theorem_3_mcp.
    Claim: the vanishing of P/alpha, the very limit (22) that Theorem 2 needs, is what takes the manifold away.
    Algorithm: as in theorem_3_mcp.
    Theorem: (22) against the weak convexity allowed by Theorem 3.
    Reference: Huang & Lee, arXiv:2403.14398, Section 5; the prediction is ours.
    Failure would mean: something else than the nonconvex subproblem causes the loss.
    """
    runs = [followed(seed) for seed in seeds(quick)]
    late = sum(run.last_right >= run.curved_lost for run in runs)
    judged = [run for run in runs if run.predicted <= STEPS]
    ratios = [run.last_right / run.predicted for run in judged]
    middle = float(np.median(ratios))
    with style():
        figure = new_figure(3.6, 3.4)
        axes = figure.subplots()
        line = [0.9 * min(run.predicted for run in judged), 1.1 * max(run.predicted for run in judged)]
        axes.plot(line, line, color="#8c8c8c", linewidth=1, label="equal")
        for index, (label, first) in enumerate((("curved entry first", True), ("zero or flat entry first", False))):
            own = [run for run in judged if (run.curved_lost <= run.other_lost) == first]
            x, y = [run.predicted for run in own], [run.last_right for run in own]
            axes.plot(x, y, "o^"[index], color=COLOURS[index], markersize=4, label=label)
        axes.set(
            xlabel="predicted step of the loss", ylabel="last step with the right structure", title="MCP, every run"
        )
        axes.legend()
    return Outcome(
        "holds" if not late and abs(middle - 1) <= 0.1 else "fails",
        {
            "predicted": [run.predicted for run in runs],
            "last right": [run.last_right for run in runs],
            "right after a curved entry was lost": late,
        },
        f"{len(judged)} runs; last right step / predicted: {min(ratios):.2f} to {max(ratios):.2f}, median "
        f"{middle:.3f}; {late} runs right after a curved entry was lost",
        {"theorem_3_mcp_loss": figure},
    )


@check(
    "theorem_3_mcp_restarts",
    claim="Restarts that keep some averages hold P/alpha above 1/gamma and let RAMDA identify with MCP (ours)",
    kind="qualitative",
    criterion="restarts every 100 steps at constant lr 0.01: with memory 50 every run is identified; with memory 0, as "
    "published, or without restarts none is",
)
def restarts(quick: bool) -> Outcome:
    """Problem: as in theorem_3_mcp.
    Claim: alpha, and with it gamma P/alpha, stays in a range where (4) is convex; the memory keeps the noise averaged.
    Algorithm: RAMDA, exact, constant lr 0.01, no averaging; restarts without decay, with memory 50 and 0.
    Theorem: none; a way to make Theorem 3's conclusion visible for weakly convex psi.
    Reference: ours; the restart is that of Huang & Lee, arXiv:2403.14398, Appendix A.1, for memory 0.
    Failure would mean: nonconvex psi needs another remedy.
    """
    steps = 1000 if quick else 2000
    stages = tuple(range(PERIOD, steps, PERIOD))
    schedules = {
        f"every {PERIOD} steps, memory {MEMORY}": Schedule(1e-2, milestones=stages, gamma=1.0, memory=MEMORY),
        f"every {PERIOD} steps, memory 0": Schedule(1e-2, milestones=stages, gamma=1.0),
        "no restarts": Schedule(1e-2),
    }
    runs: dict[str, list[np.ndarray]] = {label: [] for label in schedules}
    for label, schedule in schedules.items():
        for seed in seeds(quick):
            problem = planted_mcp(seed)
            runs[label].append(errors(recorded(problem, RAMDA(problem.regularizer), schedule, steps, seed), problem))
    found = {label: sum(map(identified, own)) for label, own in runs.items()}
    right = {label: float(np.mean([np.mean(run[steps // 2 :] == 0) for run in own])) for label, own in runs.items()}
    kept, *others = schedules
    times = [right_from(run) for run in runs[kept]]
    measured: dict[str, Any] = {"identified": found, "runs of each": len(times), "T0": times}
    with style():
        figure = new_figure(5.4, 3.2)
        axes = figure.subplots()
        for index, (label, own) in enumerate(runs.items()):
            text = f"{label}: right at {right[label]:.0%} of late steps"
            axes.plot(np.arange(1, steps + 1), own[0], label=text, linewidth=1.2, **line_style(index))
        axes.set_yscale("symlog", linthresh=2)
        axes.set_yticks([0, 1, 2, 5, 10, 20, 40], ["0", "1", "2", "5", "10", "20", "40"])
        axes.minorticks_off()
        axes.set(xlabel="iteration t", ylabel="wrong entries of $\\hat{W}_t$ (seed 0)", title="MCP with restarts")
        axes.legend()
    return Outcome(
        "holds" if found[kept] == len(times) and not any(found[label] for label in others) else "fails",
        measured | {"share of right steps in the second half": right},
        ", ".join(
            f"{found[label]}/{len(times)} identified ({label}, right at {right[label]:.0%} of late steps)"
            for label in runs
        )
        + f"; T0 with memory: median {quartiles(times)[1]:.0f}, latest {max(times)}",
        {"theorem_3_mcp_restarts": figure},
    )


CHECKS = (nonconvex, loss, restarts)
