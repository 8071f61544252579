"""Theorem 3: What_t finds the active manifold after finitely many steps, and where that ends.

Quick runs take 4 seeds instead of 20, two margins instead of four, and shorter runs;
theorem_3_errors takes LASSO only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from paper_checks.check import Outcome, check
from paper_checks.structure_runs import (
    Factory,
    errors,
    identified,
    planted_groups,
    planted_lasso,
    planted_rank,
    quartiles,
    recorded,
    right_from,
)
from paper_checks.theorem_2_limits import convergent
from ramda_theory.diagnostics import fit_rate, inexactness
from ramda_theory.drawing import COLOURS, line_style, new_figure, style
from ramda_theory.methods import RAMDA, Schedule
from ramda_theory.subproblem import PolynomialTolerance, ProximalGradient

MARGINS = (0.5, 0.2, 0.1, 0.05)
INEXACT_MARGINS = (0.2, 0.05)
SUMMABLE = PolynomialTolerance(0.1, 0.6)
PRACTICE = Schedule(1e-2)
"""One stage with constant lr and no averaging, as the identify command runs it."""


def convex_check(name: str, make: Factory, scale: int, quick: bool) -> Outcome:
    """T0 over seeds and margins, with exact subproblems and with Algorithm 2 within square-summable tolerances.

    Runs take scale/margin steps, at least four times ``scale``.
    """
    seeds = range(4 if quick else 20)
    margins = MARGINS[:2] if quick else MARGINS
    cells = [("exact", margin) for margin in margins]
    cells += [("Algorithm 2", margin) for margin in margins if margin in INEXACT_MARGINS]
    times: dict[tuple[str, float], list[int]] = {}
    found, violations = 0, 0
    for solver, margin in cells:
        steps = round(scale / min(margin, 0.25))
        for seed in seeds:
            problem = make(margin, seed)
            inexact = solver != "exact"
            method = RAMDA(problem.regularizer, solver=ProximalGradient() if inexact else None)
            schedule = convergent(tolerance=SUMMABLE) if inexact else convergent()
            record = recorded(problem, method, schedule, steps, seed)
            wrong = errors(record, problem)
            times.setdefault((solver, margin), []).append(right_from(wrong))
            found += identified(wrong)
            violations += inexactness(record).violations if inexact else 0
    runs = len(cells) * len(seeds)
    medians = {margin: quartiles(times["exact", margin])[1] for margin in margins}
    measured: dict[str, Any] = {
        "runs": runs,
        "identified": found,
        "steps of the longest runs": round(scale / min(margins)),
        "violations of (7)": violations,
        "T0": {f"{solver}, margin {margin:g}": sorted(values) for (solver, margin), values in times.items()},
    }
    slope = ""
    if len(margins) > 2:
        fitted = fit_rate(np.array(margins), np.array(list(medians.values())), (min(margins), max(margins)))
        measured["power of the margin"] = [fitted.exponent, fitted.uncertainty]
        slope = f"; median T0 ~ margin^({fitted.exponent:.2f} ± {fitted.uncertainty:.2f})"
    return Outcome(
        "holds" if found == runs and not violations else "fails",
        measured,
        f"{found} of {runs} runs identified; median T0 "
        + ", ".join(f"{value:.0f} (margin {margin:g})" for margin, value in medians.items())
        + slope
        + f"; latest {max(max(values) for values in times.values())}",
        {name: times_figure(times, name)},
    )


def times_figure(times: dict[tuple[str, float], list[int]], name: str) -> Any:
    """T0 of every seed against the margin, exact and inexact side by side, with the quartiles."""
    with style():
        figure = new_figure(5.4, 3.4)
        axes = figure.subplots()
        for index, solver in enumerate(dict.fromkeys(key[0] for key in times)):
            shift = 1.06 if index else 0.94
            for (own, margin), values in times.items():
                if own != solver:
                    continue
                low, middle, high = quartiles(values)
                places = shift * margin * np.linspace(0.97, 1.03, len(values))
                axes.loglog(places, sorted(values), "o^"[index], color=COLOURS[index], markersize=3, alpha=0.6)
                axes.loglog([shift * margin] * 2, [low, high], color="black", linewidth=1)
                axes.loglog(shift * margin, middle, "_", color="black", markersize=12, markeredgewidth=1.5)
            axes.plot([], [], "o^"[index], color=COLOURS[index], label=solver)
        axes.plot([], [], "_", color="black", label="median, quartiles")
        margins = sorted({margin for _, margin in times})
        axes.set_xticks(margins, [f"{margin:g}" for margin in margins])
        axes.minorticks_off()
        axes.set(xlabel="nondegeneracy margin", ylabel="identification time T0 (iterations)")
        axes.set_title(f"{name.rpartition('_')[2]}: T0 of every seed")
        axes.legend()
    return figure


CLAIM = "What_t is on the manifold of the planted solution for all t >= T0, a finite number: "
CRITERION = (
    "in every run What_t has the planted structure over the whole second half, and Algorithm 2 never violates (7)"
)


@check("theorem_3_l1", claim=CLAIM + "l1", kind="qualitative", criterion=CRITERION)
def l1(quick: bool) -> Outcome:
    """Problem: LASSO, 50 entries, 10 nonzero; margins 0.5 to 0.05, 20 seeds of data and noise.
    Claim: the signs of What_t are those of the solution from some step on, inexact subproblems included.
    Algorithm: RAMDA with the schedule of theorem_2_limits; exact, and Algorithm 2 within eps_t = 0.1 t^(-0.6).
    Theorem: Theorem 3.
    Reference: Huang & Lee, arXiv:2403.14398, Section 5.
    Failure would mean: dual averaging does not identify where every assumption holds.
    """
    return convex_check("theorem_3_l1", planted_lasso, 75, quick)


@check("theorem_3_group", claim=CLAIM + "group LASSO", kind="qualitative", criterion=CRITERION)
def group(quick: bool) -> Outcome:
    """Problem: group LASSO, 20 groups of 5 entries, 5 nonzero; margins 0.5 to 0.05, 20 seeds.
    Claim: the nonzero groups of What_t are those of the solution from some step on.
    Algorithm: as in theorem_3_l1.
    Theorem: Theorem 3.
    Reference: Huang & Lee, arXiv:2403.14398, Section 5.
    Failure would mean: dual averaging does not identify where every assumption holds.
    """
    return convex_check("theorem_3_group", planted_groups, 60, quick)


@check("theorem_3_nuclear", claim=CLAIM + "nuclear norm", kind="qualitative", criterion=CRITERION)
def nuclear(quick: bool) -> Outcome:
    """Problem: matrix regression, 10 x 8, rank 2; margins 0.5 to 0.05, 20 seeds.
    Claim: the rank of What_t is that of the solution from some step on.
    Algorithm: as in theorem_3_l1; "exact" is the accelerated solver at rounding level.
    Theorem: Theorem 3.
    Reference: Huang & Lee, arXiv:2403.14398, Section 5.
    Failure would mean: dual averaging does not identify where every assumption holds.
    """
    return convex_check("theorem_3_nuclear", planted_rank, 20, quick)


@check(
    "theorem_3_margin",
    claim="Without nondegeneracy (margin 0) identification is lost",
    kind="qualitative",
    criterion="margin 0, constant lr: median T0 grows >= 4-fold as runs become 8 times longer and at most half of the "
    "seeds are identified; margin 0.1: it does not grow and all are",
)
def margin(quick: bool) -> Outcome:
    """Problem: LASSO with one gradient entry on the boundary of its interval (margin 0), and with margin 0.1.
    Claim: on the boundary there is no last wrong step; away from it there is one.
    Algorithm: RAMDA, exact, constant lr 0.01; for comparison the schedule of theorem_2_limits.
    Theorem: the relative interior condition of Theorem 3.
    Reference: Huang & Lee, arXiv:2403.14398, Section 5.
    Failure would mean: the condition is not needed, or the runs are too short to show it.
    """
    steps, seeds = (1200, range(8)) if quick else (4000, range(20))
    lengths = [steps // 8, steps // 4, steps // 2, steps]
    cases = {
        "margin 0, constant lr": (0.0, PRACTICE),
        "margin 0, lr $t^{-9/8}$": (0.0, convergent()),
        "margin 0.1, constant lr": (0.1, PRACTICE),
    }
    medians, shares = {}, {}
    for label, (own, schedule) in cases.items():
        wrong = []
        for seed in seeds:
            problem = planted_lasso(own, seed)
            record = recorded(problem, RAMDA(problem.regularizer), schedule, steps, seed)
            wrong.append(errors(record, problem))
        medians[label] = [float(np.median([right_from(run[:length]) for run in wrong])) for length in lengths]
        shares[label] = float(np.mean([identified(run) for run in wrong]))
    growth = {label: values[-1] / values[0] for label, values in medians.items()}
    lost, falling, kept = cases
    with style():
        figure = new_figure(5.4, 3.2)
        axes = figure.subplots()
        for index, (label, values) in enumerate(medians.items()):
            text = f"{label}: {shares[label]:.0%} of seeds identified"
            axes.loglog(lengths, values, label=text, marker="os^"[index], markersize=4, **line_style(index))
        axes.loglog(lengths, lengths, color="#8c8c8c", linewidth=0.9, label="T0 = end of the run")
        axes.set_xticks(lengths, [str(length) for length in lengths])
        axes.set_yticks(lengths, [str(length) for length in lengths])
        axes.minorticks_off()
        axes.set(xlabel="length of the run", ylabel="median T0", title="The last wrong step, as runs become longer")
        axes.legend()
    holds = growth[lost] >= 4 and shares[lost] <= 0.5 and growth[kept] <= 1.5 and shares[kept] == 1
    return Outcome(
        "holds" if holds else "fails",
        {"lengths": lengths, "median T0": medians, "growth": growth, "share identified": shares},
        f"median T0 grows {growth[lost]:.1f}-fold at margin 0 ({shares[lost]:.0%} of seeds identified), "
        f"{growth[kept]:.1f}-fold at margin 0.1 ({shares[kept]:.0%}); with lr t^(-9/8) at margin 0 "
        f"{growth[falling]:.1f}-fold ({shares[falling]:.0%}): the noise summed in V settles, on either side",
        {"theorem_3_margin": figure},
    )


CHECKS = (l1, group, nuclear, margin)
