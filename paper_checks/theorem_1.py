"""Theorem 1: how many proximal gradient steps (Algorithm 2) a subproblem solution within (7) takes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from paper_checks.check import Outcome, check
from paper_checks.inner_iterations import (
    DECADES,
    LIMIT,
    asymptotic_tolerances,
    counted,
    first_hits,
    fitted_line,
    grouped_hits,
    predicted_slope,
    residuals,
    slope_by_decay,
)
from paper_checks.subproblems import (
    CONVEX,
    FORMS,
    GROUP,
    LASSO,
    NONCONVEX,
    NUCLEAR,
    nearly_flat,
    planted,
    slowest_direction,
)
from ramda_theory.drawing import COLOURS, line_style, new_figure, style
from ramda_theory.regularizers import MCP, Regularizer
from ramda_theory.subproblem import Accelerated, solve

NONCONVEX_LIMIT = 20_000
MARKS = "osD^v*"


def slopes(instance: Any, conditions: Any, nuclear_conditions: Any, long_run: int) -> list[dict[str, Any]]:
    """Measured and predicted slopes of an instance family; by `slope_by_decay` where a nuclear norm run is too long."""
    rows: list[dict[str, Any]] = []
    for name, psi in CONVEX.items():
        for form in FORMS:
            for condition in nuclear_conditions if psi is NUCLEAR else conditions:
                problem, start, solution = instance(psi, condition, form)
                if psi is NUCLEAR and condition > 1e3:
                    slope, left, hits = slope_by_decay(problem, start, long_run), 0.0, None
                else:
                    tolerances = asymptotic_tolerances(problem, start, solution)
                    hits = counted(problem, start, tolerances)
                    slope, left = fitted_line(tolerances, hits)
                predicted = predicted_slope(condition)
                rows.append(
                    {
                        "psi": name,
                        "form": form,
                        "condition": condition,
                        "slope": slope,
                        "predicted": predicted,
                        "off the line": left,
                        "iterations": hits,
                    }
                )
    return rows


def slope_figure(rows: list[dict[str, Any]], title: str):
    """Iterations of the first l1 subproblems as lines in log 1/eps; all slopes beside the prediction."""
    with style():
        figure = new_figure(7.2, 3.2)
        lines, axes = figure.subplots(1, 2)
        own = [row for row in rows if (row["psi"], row["form"]) == ("l1", "(4)") and row["condition"] > 1]
        for index, condition in enumerate(dict.fromkeys(row["condition"] for row in own)):
            hits = next(row["iterations"] for row in own if row["condition"] == condition)
            scaled = hits / predicted_slope(condition)
            lines.semilogx(10.0**DECADES, scaled, label=f"{condition:.0e}", **line_style(index + 1))
        reach = np.log(10.0) * (DECADES - DECADES[0])
        lines.semilogx(10.0**DECADES, reach, color="#8c8c8c", linewidth=3, alpha=0.5, label="predicted slope")
        lines.set(xlabel=r"$\min P\,||Z_0 - Z^*|| \,/\, \varepsilon_t$", ylabel="iterations / predicted slope")
        lines.set_title("l1, (4): lines (max P / min P)")
        lines.legend()
        conditions = np.geomspace(2, max(row["condition"] for row in rows))
        axes.loglog(conditions, [predicted_slope(c) for c in conditions], color="#8c8c8c", label="predicted")
        for index, key in enumerate(sorted({(row["psi"], row["form"]) for row in rows})):
            own = [row for row in rows if (row["psi"], row["form"]) == key and row["condition"] > 1]
            axes.loglog(
                [row["condition"] * 1.12 ** (index - 2.5) for row in own],  # side by side
                [row["slope"] for row in own],
                linestyle="none",
                marker=MARKS[index],
                markersize=5,
                markerfacecolor="none" if key[1] == "(6)" else COLOURS[index],
                color=COLOURS[index],
                label=f"{key[0]}, {key[1]}",
            )
        axes.set(xlabel="max P / min P", ylabel="iterations per factor e in $\\varepsilon_t$", title=title)
        axes.legend()
    return figure


def full_or_quick(quick: bool) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Condition numbers (l1 and group LASSO; nuclear norm) and the length of a nuclear norm run."""
    if quick:
        return (1.0, 10.0, 1e3, 1e4), (1.0, 10.0), 0
    return tuple(10.0**k for k in range(7)), tuple(10.0**k for k in range(7)), 10_000


def random_instance(seed: int):
    """The instance family `planted` of one seed."""
    return lambda psi, condition, form: planted(psi, condition, form, seed)


def slow_instance(psi: Regularizer, condition: float, form: str):
    """The instance family `slowest_direction`."""
    return slowest_direction(planted(psi, condition, form, seed=0)[0])


@check(
    "theorem_1_convex",
    claim="For convex psi PG meets (7) in O(log 1/eps_t) iterations, at most -1/log(1 - min P/max P) per factor e",
    kind="upper bound",
    criterion="every fitted slope <= 1.02 * predicted + 0.5; the line leaves <= 2 % of the variance of the iterations",
)
def convex(quick: bool) -> Outcome:
    """Problem: subproblems (4) and (6) in random metrics, half of the pieces of the solution zero.
    Claim: the iterations grow linearly in log 1/eps_t, with a slope given by the condition number of P.
    Algorithm: Algorithm 2 from W_{t-1}, tolerances of min P ||Z_0 - Z*|| times 10^-1 to 10^-4; for the nuclear norm
    and condition numbers above 1e3 the decay of the residual over the second half of 1e4 iterations.
    Theorem: Theorem 1.
    Reference: Huang & Lee, arXiv:2403.14398, Section 5 and Appendix B.
    Failure would mean: the inner solver needs more steps than the theory's constant allows, or not a line.
    """
    family = full_or_quick(quick)
    rows = [row for seed in ((0,) if quick else (0, 1)) for row in slopes(random_instance(seed), *family)]
    worst = max(row["slope"] - 1.02 * row["predicted"] for row in rows)
    left = max(row["off the line"] for row in rows)
    ratios = {
        name: [row["slope"] / row["predicted"] for row in rows if row["psi"] == name and row["condition"] > 1]
        for name in CONVEX
    }
    spans = {name: [min(values), max(values)] for name, values in ratios.items()}
    return Outcome(
        "holds" if worst <= 0.5 and left <= 0.02 else "fails",
        {"slopes": rows, "slope / predicted, least and largest": spans, "largest share off the line": left},
        f"{len(rows)} subproblems; slope / predicted: "
        + ", ".join(f"{name} {low:.2g} to {high:.2g}" for name, (low, high) in spans.items())
        + f"; off the line {left:.1%} of the variance at most",
        {"theorem_1_convex": slope_figure(rows, "Random: the prediction bounds")},
    )


@check(
    "theorem_1_tight",
    claim="The rate 1 - min P/max P of Theorem 1 is attained",
    kind="tight",
    criterion="on the constructed instances every slope is within 2 % (or 0.5) of the predicted one",
)
def tight(quick: bool) -> Outcome:
    """Problem: (4) and (6) where start and solution differ only in the entry of the smallest P, nonzero in both.
    Claim: no better rate than 1 - min P/max P holds for l1, group LASSO and nuclear norm alike.
    Algorithm: Algorithm 2, as in theorem_1_convex.
    Theorem: Theorem 1.
    Reference: Huang & Lee, arXiv:2403.14398, Appendix B.
    Failure would mean: the constant of the proof could be improved, or our solver is not Algorithm 2.
    """
    rows = slopes(slow_instance, *full_or_quick(quick))
    worst = max(abs(row["slope"] - row["predicted"]) - 0.02 * row["predicted"] for row in rows)
    relative = max(abs(row["slope"] / row["predicted"] - 1) for row in rows if row["condition"] > 1)
    return Outcome(
        "holds" if worst <= 0.5 else "fails",
        {"slopes": rows, "largest relative difference": relative},
        f"{len(rows)} instances, condition numbers 1 to {max(row['condition'] for row in rows):.0e}: "
        f"slope / predicted - 1 is at most {relative:.1e} in size",
        {"theorem_1_tight": slope_figure(rows, "One slow direction: it is exact")},
    )


@check(
    "theorem_1_stated_rates",
    claim="Of the two stated convex rates, log(1/eps) (Section 5) is tight as eps -> 0; 1/eps (Appendix B) is not",
    kind="tight",
    criterion="d log N / d log(1/eps) < 0.25 over the last decade, and on the slow instance N is within 1 % of a line",
)
def stated_rates(quick: bool) -> Outcome:
    """Problem: l1, (6); the random and the slow instance of theorem_1_convex and theorem_1_tight.
    Claim: N = O(log 1/eps_t), not O(1/eps_t), is the rate as eps_t falls at a fixed metric.
    Algorithm: Algorithm 2; tolerances down to 1e-4 min P ||Z_0 - Z*||.
    Theorem: Theorem 1, stated with log 1/eps_t in Section 5 and with 1/eps_t in Appendix B.
    Reference: Huang & Lee, arXiv:2403.14398, Section 5 and Appendix B.
    Failure would mean: the proof, which gives the logarithm, and the solver disagree.
    """
    condition = 1e4 if quick else 1e6
    problem, start, solution = planted(LASSO, condition, "(6)", 0)
    knee = float(problem.metric.min() * np.linalg.norm(start - solution))
    exponents = np.arange(-math.log10(condition) + 1, 4.1, 0.25)
    hits = grouped_hits(problem, start, knee * 10.0**-exponents, LIMIT)
    local = np.diff(np.log10(hits)) / np.diff(exponents)
    above = float(np.mean(local[exponents[1:] <= -0.5]))
    last = float(np.max(local[-4:]))
    slow, slow_start, slow_solution = slowest_direction(problem)
    tolerances = asymptotic_tolerances(slow, slow_start, slow_solution)
    slow_hits = grouped_hits(slow, slow_start, tolerances, LIMIT)
    line = np.polyval(np.polyfit(-np.log(tolerances), slow_hits, 1), -np.log(tolerances))
    off = float(np.max(np.abs(line / slow_hits - 1)))
    with style():
        figure = new_figure(5.4, 3.2)
        axes = figure.subplots()
        x = 10.0**exponents
        axes.loglog(x, hits, label="iterations, random instance", marker="o", markersize=3, **line_style(0))
        above_knee = x[x <= 3]
        axes.loglog(
            above_knee, hits[len(above_knee) // 2] * above_knee / above_knee[len(above_knee) // 2], **line_style(1)
        )
        axes.lines[-1].set_label("proportional to $1/\\varepsilon$")
        below = x[x >= 3]
        axes.loglog(below, condition * np.log(below) + hits[x >= 3][0] - condition * np.log(below[0]), **line_style(2))
        axes.lines[-1].set_label("predicted slope in $\\log 1/\\varepsilon$")
        axes.axvline(1.0, color="#8c8c8c", linewidth=0.8)
        axes.text(1.2, hits[0], "$\\varepsilon = \\min P\\,||Z_0 - Z^*||$", fontsize=7.5)
        axes.set(xlabel=r"$\min P\,||Z_0 - Z^*|| \,/\, \varepsilon$", ylabel="iterations of Algorithm 2")
        axes.set_title(f"l1, max P / min P = {condition:.0e}: both rates, one after the other")
        axes.legend()
    return Outcome(
        "holds" if last < 0.25 and off <= 0.01 else "fails",
        {"exponent above min P": above, "exponent over the last decade": last, "off the line": off, "iterations": hits},
        f"exponent of N in 1/eps: {above:.2f} while eps > min P ||Z_0 - Z*||, {last:.2f} at the end; slow "
        f"instance within {off:.1e} of a line.  1/eps describes the stretch before the metric's smallest entry matters",
        {"theorem_1_stated_rates": figure},
    )


@check(
    "theorem_1_steps",
    claim="A step per group replaces the spread of P by the largest spread inside a group; acceleration takes its root",
    kind="upper bound",
    criterion="slopes <= 1.02 * predicted(largest spread inside a group) + 0.5, and <= 2 sqrt(max P/min P) accelerated",
)
def step_sizes(quick: bool) -> Outcome:
    """Problem: (4), group LASSO, metrics that spread sqrt(max P/min P) inside a group; random and slow instances.
    Claim: theta = 1/max P_g per group has the rate of the worst group; momentum has 1 - sqrt(min P/max P).
    Algorithm: Algorithm 2 with one step size, with one per group, and accelerated, all from W_{t-1}.
    Theorem: Theorem 1 group by group; for the accelerated form Nesterov's rate, no claim of the paper.
    Reference: Huang & Lee, arXiv:2403.14398, Section 4; Nesterov (2004), Introductory Lectures on Convex Optimization.
    Failure would mean: the ways out of ill-conditioning do not deliver.
    """
    rows: list[dict[str, Any]] = []
    for condition in (1e2, 1e4) if quick else (1e2, 1e4, 1e6):
        inside = math.sqrt(condition)
        for kind in ("random", "slow"):
            problem, start, solution = planted(GROUP, condition, "(4)", 0, within=inside)
            if kind == "slow":
                problem, start, solution = slowest_direction(problem)
            tolerances = asymptotic_tolerances(problem, start, solution)
            accelerated = [
                solve(problem, Accelerated(), start=start, tolerance=float(eps), max_iter=100_000).iterations
                for eps in tolerances[::3]
            ]
            rows.append(
                {
                    "instance": kind,
                    "condition": condition,
                    "one step": fitted_line(tolerances, grouped_hits(problem, start, tolerances, LIMIT))[0],
                    "per group": fitted_line(tolerances, grouped_hits(problem, start, tolerances, LIMIT, "group"))[0],
                    "accelerated": fitted_line(tolerances[::3], np.array(accelerated))[0],
                    "predicted per group": predicted_slope(inside),
                    "allowed accelerated": 2.0 * math.sqrt(condition),
                }
            )
    holds = all(
        row["per group"] <= 1.02 * row["predicted per group"] + 0.5 and row["accelerated"] <= row["allowed accelerated"]
        for row in rows
    )
    slow = [row for row in rows if row["instance"] == "slow"]
    with style():
        figure = new_figure(5.4, 3.2)
        axes = figure.subplots()
        for index, name in enumerate(("one step", "per group", "accelerated")):
            axes.loglog(
                [row["condition"] for row in slow],
                [row[name] for row in slow],
                label=name,
                marker=MARKS[index],
                markersize=5,
                **line_style(index),
            )
        axes.set(
            xlabel="max P / min P (its root inside each group)", ylabel="iterations per factor e in $\\varepsilon_t$"
        )
        axes.set_title("Group LASSO, the slow instance")
        axes.legend()
    last = slow[-1]
    return Outcome(
        "holds" if holds else "fails",
        {"slopes": rows},
        f"at max P/min P = {last['condition']:.0e}, slow instance: one step {last['one step']:.3g}, per group "
        f"{last['per group']:.3g} (predicted {last['predicted per group']:.3g}), accelerated {last['accelerated']:.3g} "
        f"(allowed {last['allowed accelerated']:.3g}) iterations per factor e",
        {"theorem_1_steps": figure},
    )


@check(
    "theorem_1_nonconvex",
    claim="For nonconvex psi PG with halved steps meets (7) in O(eps_t^-2) iterations",
    kind="upper bound",
    criterion="every log-log slope over 2 to 4 decades <= 2, and every N <= 18 max P (Q(Z_0) - min Q) / eps^2",
)
def nonconvex(quick: bool) -> Outcome:
    """Problem: (4) and (6) with MCP and SCAD, metrics on both sides of the weak convexity; MCP, nearly flat.
    Claim: N(eps) grows no faster than eps^-2, with the constant that sufficient descent gives.
    Algorithm: Algorithm 2, theta = 1/(2 max P), tolerances from 10^-0.5 to 10^-4.5 of the first residual.
    Theorem: Theorem 1, nonconvex case.
    Reference: Huang & Lee, arXiv:2403.14398, Section 5 and Appendix B.
    Failure would mean: sufficient descent is lost and inner loops may not end.
    """
    instances = {
        f"{name}, {form}, condition {condition:.0e}, seed {seed}": planted(psi, condition, form, seed)[:2]
        for name, psi in NONCONVEX.items()
        for form in FORMS
        for condition in ((100.0,) if quick else (10.0, 1e2, 1e3))
        for seed in ((0,) if quick else (0, 1))
    }
    psi = NONCONVEX["MCP"]
    assert isinstance(psi, MCP)
    instances |= {f"MCP, nearly flat, seed {seed}": nearly_flat(psi, seed) for seed in ((0,) if quick else (0, 1, 2))}
    rows: list[dict[str, Any]] = []
    curves: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, (problem, start) in instances.items():
        tolerances = next(residuals(problem, start)) * 10.0 ** -np.arange(0.5, 4.6, 0.5)
        hits = first_hits(residuals(problem, start), tolerances, NONCONVEX_LIMIT)
        reached = hits < NONCONVEX_LIMIT
        tolerances, hits = tolerances[reached], hits[reached]
        gap = float(problem.objective(start) - problem.objective(solve(problem, "exact").point))
        bound = 18.0 * float(problem.metric.max()) * gap / tolerances**2
        slope = fitted_line(tolerances, np.log(hits))[0]
        rows.append(
            {
                "instance": name,
                "slope": slope,
                "decades": len(hits) / 2,
                "last slope": fitted_line(tolerances[-3:], np.log(hits[-3:]))[0],
                "share of the bound": float(np.max(hits / bound)),
            }
        )
        curves[name] = tolerances, hits
    steepest = max(rows, key=lambda row: row["slope"])
    share = max(row["share of the bound"] for row in rows)
    settled = max(row["last slope"] for row in rows if "flat" not in row["instance"])
    enough = min(row["decades"] for row in rows) >= 2.5
    shown = [name for name in curves if "seed 0" in name and ("flat" in name or f"{1e2:.0e}" in name)]
    with style():
        figure = new_figure(5.4, 3.4)
        axes = figure.subplots()
        for index, name in enumerate(shown):
            tolerances, hits = curves[name]
            axes.loglog(tolerances[0] / tolerances, hits, label=name.removesuffix(", seed 0"), **line_style(index))
        x = np.array([1.0, 100.0])
        axes.loglog(x, 3 * x**2, color="#8c8c8c", linewidth=0.8, label="slope 2 (the claim)")
        axes.set(xlabel=r"$\varepsilon_0 / \varepsilon$", ylabel="iterations of Algorithm 2", title="MCP and SCAD")
        axes.legend()
    return Outcome(
        "holds" if steepest["slope"] <= 2 and share <= 1 and enough else "fails",
        {"instances": rows, "steepest": steepest["slope"], "largest share of the bound": share},
        f"{len(rows)} subproblems: steepest {steepest['slope']:.2f} ({steepest['instance']}), N at most {share:.1%} of "
        "the bound.  Nearly flat, max P/min P = 2 tells nothing of the rate; elsewhere the end is linear, as these psi "
        f"are piecewise quadratic (last decade's slope {settled:.2f} at most)",
        {"theorem_1_nonconvex": figure},
    )


CHECKS = (convex, tight, stated_rates, step_sizes, nonconvex)
