"""Theorem 3 and the iterates it speaks of: which errors of What_t cost the manifold, and when W_t reaches it.

Quick runs take one problem (theorem_3_errors) or two seeds (theorem_3_averaging), and fewer steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from paper_checks.check import Outcome, check
from paper_checks.structure_runs import (
    SIGMA,
    errors,
    errors_w,
    identified,
    planted_groups,
    planted_lasso,
    planted_rank,
    recorded,
    right_from,
)
from paper_checks.theorem_2_limits import convergent
from ramda_theory.arrays import Array
from ramda_theory.drawing import line_style, new_figure, style
from ramda_theory.methods import RAMDA, NoisyGradient, Schedule
from ramda_theory.problems import Problem
from ramda_theory.regularizers import GroupLasso
from ramda_theory.run import run
from ramda_theory.subproblem import PolynomialTolerance, Subproblem, largest_perturbation, perturbed, solve
from ramda_theory.subproblem.problem import Candidate


class Moved:
    """The exact solution, moved along a random direction by the distance eps_t, whatever its residual."""

    def __init__(self, along: str) -> None:
        self.along = along

    def __repr__(self) -> str:
        return f"Moved({self.along!r})"

    def __call__(self, problem: Subproblem, start: Array, tolerance: float, max_iter: int) -> Candidate:
        exact = solve(problem).point
        return Candidate(perturbed(problem, exact, tolerance, tolerance=tolerance, along=self.along).point, 1)


class FarthestAllowed:
    """The exact solution, moved along a random direction as far as (7) with eps_t allows."""

    def __init__(self, along: str) -> None:
        self.along = along

    def __repr__(self) -> str:
        return f"FarthestAllowed({self.along!r})"

    def __call__(self, problem: Subproblem, start: Array, tolerance: float, max_iter: int) -> Candidate:
        exact = solve(problem)
        moved = largest_perturbation(problem, exact.point, tolerance=tolerance, start=start, along=self.along)
        # Not moved at all, it is the solver's own point, whose rank is known.
        still = np.array_equal(moved.point, exact.point)
        return Candidate(moved.point, 1, exact.structure if still else None)


@check(
    "theorem_3_errors",
    claim="Errors within (7) do not cost the manifold, while arbitrarily small errors that ignore (7) do",
    kind="qualitative",
    criterion="moved by 1e-9 t^(-0.6): no step right; moved as far as (7) allows: identified; off the manifold "
    "min||s|| >= 0.99 lambda alpha margin at every distance >= 1e-9",
)
def inexact_errors(quick: bool) -> Outcome:
    """Problem: planted LASSO, group LASSO and low-rank regression, margin 0.5.
    Claim: a bound on ||What_t - exact|| says nothing of structure; one on min||s|| does if eps_t < alpha lambda margin.
    Algorithm: RAMDA with exact solutions moved along random directions, off the manifold by 1e-9 t^(-0.6); and on or
    off it as far as (7) with eps_t = t^(-0.6) allows.
    Theorem: Theorem 3 with (7).
    Reference: Lee, Accelerating inexact successive quadratic approximation (2023), remark after Example 1.
    Failure would mean: (7) is not the right accuracy condition for structure.
    """
    factories = {"l1": planted_lasso} if quick else {"l1": planted_lasso, "group": planted_groups, "rank": planted_rank}
    steps, seeds = (80, range(1)) if quick else (120, range(2))
    variants: dict[str, tuple[Any, float]] = {
        "exact": (None, 1.0),
        "on the manifold, farthest in (7)": (FarthestAllowed("manifold"), 1.0),
        "anywhere, farthest in (7)": (FarthestAllowed("ambient"), 1.0),
        "anywhere, by $10^{-9} t^{-0.6}$": (Moved("ambient"), 1e-9),
    }
    wrong: dict[str, list[np.ndarray]] = {label: [] for label in variants}
    jumps, profile = [], None
    for make in factories.values():
        for seed in seeds:
            problem = make(0.5, seed)
            for label, (solver, initial) in variants.items():
                method = RAMDA(problem.regularizer, solver=solver)
                schedule = convergent(tolerance=PolynomialTolerance(initial, 0.6) if solver else None)
                wrong[label].append(errors(recorded(problem, method, schedule, steps, seed), problem))
            own = residual_profile(problem, steps, seed)
            jumps.append(float(np.min(own["ambient"]) / own["threshold"]))
            profile = profile or own
    assert profile is not None
    *kept, broken = wrong
    right = sum(int(np.count_nonzero(run == 0)) for run in wrong[broken])
    found = {label: sum(map(identified, runs)) for label, runs in wrong.items()}
    total = len(wrong[broken])
    holds = right == 0 and all(found[label] == total for label in kept) and min(jumps) >= 0.99
    return Outcome(
        "holds" if holds else "fails",
        {
            "identified": found,
            "runs of each": total,
            "right steps when moved by 1e-9": right,
            "least residual off the manifold / (alpha lambda margin)": jumps,
            "median T0": {label: float(np.median([right_from(run) for run in runs])) for label, runs in wrong.items()},
        },
        f"moved by 1e-9 t^(-0.6): {right} of {total * steps} steps right; as far as (7) allows: "
        + ", ".join(f"{found[label]}/{total}" for label in kept[1:])
        + f" identified; off the manifold min||s|| >= {min(jumps):.2f} alpha lambda margin however small the move",
        {"theorem_3_errors": errors_figure(wrong, profile)},
    )


def residual_profile(problem: Problem, steps: int, seed: int) -> dict[str, np.ndarray]:
    """min||s||/alpha of points at growing distances from an exact solution, along the manifold and anywhere."""
    psi = problem.regularizer
    method = RAMDA(psi)
    state = run(problem, method, convergent(), steps, gradients=NoisyGradient(SIGMA, seed)).state
    subproblem, alpha = method.subproblem(state), state.weight_sum
    exact = solve(subproblem).point
    distances = 10.0 ** np.arange(-9.0, 0.1, 0.5)
    result = {
        along: np.array(
            [perturbed(subproblem, exact, float(d), tolerance=0.0, along=along).residual for d in distances]
        )
        / alpha
        for along in ("manifold", "ambient")
    }
    weight = psi.weight * (np.sqrt(exact.shape[1]) if isinstance(psi, GroupLasso) else 1.0)
    inside = float(psi.nondegeneracy_margin(exact, subproblem.gradient(exact) / alpha))
    return result | {"distances": distances, "threshold": np.array(weight * inside)}


def errors_figure(wrong: dict[str, list[np.ndarray]], profile: dict[str, np.ndarray]) -> Any:
    """Residual against distance for the first problem; structure errors of its runs."""
    with style():
        figure = new_figure(7.2, 3.2)
        residual_axes, error_axes = figure.subplots(1, 2)
        for index, (along, label) in enumerate((("manifold", "along the manifold"), ("ambient", "any direction"))):
            residual_axes.loglog(
                profile["distances"], profile[along], marker="os"[index], markersize=3, label=label, **line_style(index)
            )
        residual_axes.axhline(
            float(profile["threshold"]), color="#8c8c8c", linewidth=1, label=r"$\lambda\,\cdot$ margin"
        )
        residual_axes.set(xlabel="distance from the exact solution", ylabel=r"min $\|s\| / \alpha_t$")
        residual_axes.set_title("l1: what (7) sees of an error")
        residual_axes.legend()
        for index, (label, runs) in enumerate(wrong.items()):
            error_axes.plot(np.arange(1, len(runs[0]) + 1), runs[0], label=label, linewidth=1.4, **line_style(index))
        error_axes.set_yscale("symlog", linthresh=2)
        error_axes.set_yticks([0, 1, 2, 5, 10, 20, 40], ["0", "1", "2", "5", "10", "20", "40"])
        error_axes.minorticks_off()
        error_axes.set(xlabel="iteration t", ylabel="wrong entries of $\\hat{W}_t$", title="l1: the runs")
        error_axes.legend()
    return figure


@check(
    "theorem_3_averaging",
    claim="W_t, the trained model, has the structure of What_t only once c_t has reached 1",
    kind="tight",
    criterion="averaging 0.1 and 4/t: What_t identified and W_t wrong at the end; 0.1 sqrt(t) up to 1: T0 of W_t is at "
    "most the later of T0 of What_t and the step at which c_t = 1; 1: the two are equal",
)
def averages(quick: bool) -> Outcome:
    """Problem: planted LASSO and group LASSO, margin 0.2.
    Claim: an average with weights below 1 keeps a share of every earlier What_t and with it its nonzeros.
    Algorithm: RAMDA, exact; constant lr 0.01 with averaging 0.1, growing to 1, 1; and lr t^(-9/8), averaging 4/t.
    Theorem: Theorem 3 speaks of What_t; the experiments report W_T.
    Reference: Huang & Lee, arXiv:2403.14398, Section 5 and Appendix A.1.
    Failure would mean: the growing averaging of the last stage would be superfluous.
    """
    steps, seeds = (500, range(2)) if quick else (1000, range(8))
    schedules = {
        "0.1": Schedule(1e-2, 0.1),
        "4/t": convergent(),
        r"0.1 $\sqrt{t}$ up to 1": Schedule(1e-2, 0.1, grow_averaging=True),
        "1": Schedule(1e-2),
    }
    reached = 100  # the step at which 0.1 sqrt(t) is 1
    rows: dict[str, list[dict[str, int]]] = {label: [] for label in schedules}
    shown: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for label, schedule in schedules.items():
        for make in (planted_lasso, planted_groups):
            for seed in seeds:
                problem = make(0.2, seed)
                record = recorded(problem, RAMDA(problem.regularizer), schedule, steps, seed)
                hat, w = errors(record, problem), errors_w(record, problem)
                rows[label].append({"T0 of What": right_from(hat), "T0 of W": right_from(w), "wrong in W": int(w[-1])})
                shown.setdefault(label, (hat, w))
    fixed, harmonic, growing, one = schedules
    never = all(row["T0 of What"] <= steps // 2 and row["wrong in W"] > 0 for row in rows[fixed] + rows[harmonic])
    follows = all(row["T0 of W"] <= max(row["T0 of What"], reached) for row in rows[growing])
    same = all(row["T0 of W"] == row["T0 of What"] for row in rows[one])
    with style():
        figure = new_figure(7.2, 3.0)
        for index, (axes, label) in enumerate(
            zip(figure.subplots(1, 3, sharey=True), (fixed, harmonic, growing), strict=True)
        ):
            hat, w = shown[label]
            axes.semilogx(np.arange(1, steps + 1), hat, label=r"$\hat{W}_t$", linewidth=1.4, **line_style(0))
            axes.semilogx(np.arange(1, steps + 1), w, label="$W_t$", linewidth=1.4, **line_style(1))
            axes.set(xlabel="iteration t", title=f"averaging {label}")
            if index == 0:
                axes.set_ylabel("wrong entries (LASSO, seed 0)")
                axes.legend()
    return Outcome(
        "holds" if never and follows and same else "fails",
        {"runs": rows, "steps": steps},
        f"W_t wrong at the end in {min(row['wrong in W'] for row in rows[fixed])} to "
        f"{max(row['wrong in W'] for row in rows[fixed])} pieces (averaging 0.1), "
        f"{min(row['wrong in W'] for row in rows[harmonic])} to "
        f"{max(row['wrong in W'] for row in rows[harmonic])} (4/t); growing: its T0 <= max(T0 of What_t, {reached})",
        {"theorem_3_averaging": figure},
    )


CHECKS = (inexact_errors, averages)
