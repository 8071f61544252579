"""Table 1 in small: the authors' early stopping of the inner solver against none and against exact solutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from paper_checks.check import Outcome, check
from ramda_theory.diagnostics import fit_rate
from ramda_theory.drawing import COLOURS, line_style, new_figure, style
from ramda_theory.methods import RAMDA, ProxGen, SampledGradient, Schedule
from ramda_theory.problems import Problem, multinomial_logistic, teacher
from ramda_theory.regularizers import GroupLasso
from ramda_theory.run import Run, run
from ramda_theory.subproblem import ConstantTolerance, ProximalGradient

NEVER = ConstantTolerance(1e-300)
"""A tolerance that is not reached: 100 inner iterations at every step."""

STOPPING: dict[str, ProximalGradient | None] = {
    "early": ProximalGradient(step="group", stopping="relative_decrease", rtol=1e-8),
    "none": ProximalGradient(step="group"),
    "exact": None,
}
METHODS: dict[str, tuple[Any, Callable[[int], Schedule]]] = {
    "RAMDA": (RAMDA, lambda steps: Schedule(1e-2, 0.1, grow_averaging=True, tolerance=NEVER)),
    "ProxGen": (ProxGen, lambda steps: Schedule(1e-2, eps=1e-8, milestones=(7 * steps // 10,), tolerance=NEVER)),
}


@dataclass(frozen=True)
class Workload:
    """A problem and the quality of its models: the test accuracy, or nothing but the objective."""

    problem: Problem
    accuracy: Callable[[np.ndarray], float] = lambda w: np.nan


def held_out_digits(weight: float) -> Workload:
    """Logistic regression on the digits with group LASSO and 500 of the images held out for the accuracy."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    train, test = order[500:], order[:500]
    features, targets = data.data / 16.0, data.target
    problem = multinomial_logistic(features[train], targets[train], GroupLasso(weight, dims=(1,)))
    return Workload(problem, lambda w: float(np.mean(np.argmax(features[test] @ w, axis=1) == targets[test])))


@cache
def workloads() -> dict[str, Workload]:
    """The digits and the nonconvex teacher network."""
    return {"digits": held_out_digits(5e-3), "teacher": Workload(teacher())}


@cache
def trained(workload: str, method: str, stopping: str, seed: int, steps: int) -> Run:
    """One run; at most 100 inner iterations, as the authors allow."""
    problem = workloads()[workload].problem
    make, schedule = METHODS[method]
    return run(
        problem,
        make(problem.regularizer, solver=STOPPING[stopping], max_iter=100),
        schedule(steps),
        steps,
        gradients=SampledGradient(64, seed),
        measure_every=steps,
    )


def row(workload: str, method: str, stopping: str, seeds: int, steps: int) -> dict[str, float]:
    """What Table 1 reports, as means over the seeds, and the time of a step."""
    runs = [trained(workload, method, stopping, seed, steps) for seed in range(seeds)]
    entry = workloads()[workload]
    used = [result.record.structures_w.counts()[-1] / len(entry.problem.initial) for result in runs]
    return {
        "objective": float(np.mean([entry.problem.objective(result.state.w) for result in runs])),
        "accuracy": float(np.mean([entry.accuracy(result.state.w) for result in runs])),
        "zero groups": 1.0 - float(np.mean(used)),
        "ms per step": 1e3 * float(np.median([result.record.metrics["seconds"][-1] for result in runs])) / steps,
        "inner iterations": float(np.mean([iterations_per_step(result) for result in runs])),
        "residual": float(np.median([relative_residual(workload, result) for result in runs])),
    }


def iterations_per_step(result: Run) -> float:
    """Mean inner iterations of a step, 0 if it was solved exactly."""
    return float(np.mean(result.record.inner["iterations"])) if len(result.record.inner) else 0.0


def relative_residual(workload: str, result: Run) -> float:
    """Median over the run of min||s|| in (7) over alpha_t lambda_g (eta lambda_g), NaN if it was solved exactly."""
    return float(np.median(inner_residuals(workload, result))) if len(result.record.inner) else np.nan


def inner_residuals(workload: str, result: Run) -> np.ndarray:
    """The residual of (7) at every step over alpha_t lambda_g (dual averaging) or eta_t lambda_g (ProxGen)."""
    psi = workloads()[workload].problem.regularizer
    assert isinstance(psi, GroupLasso)
    steps = len(result.record.inner)
    dual = hasattr(result.state, "weight_sum")
    schedule = METHODS["RAMDA" if dual else "ProxGen"][1](steps)
    lr = np.array([schedule.at(t).lr for t in range(1, steps + 1)])
    scale = np.cumsum(lr * np.sqrt(np.arange(1, steps + 1))) if dual else lr
    return result.record.inner["residual"] / (scale * float(np.max(psi.group_weights(result.state.w))))


def span(values: list[float]) -> str:
    """The least and the largest of them."""
    return f"{min(values):.1f} to {max(values):.1f}"


def words(values: dict[str, float]) -> str:
    """Each value with its name."""
    return ", ".join(f"{value:.2f} ({name})" for name, value in values.items())


def size_of(quick: bool) -> tuple[int, int]:
    """Seeds and steps."""
    return (1, 100) if quick else (2, 400)


@check(
    "table_1_quality",
    claim="Early stopping of PG costs no model quality or sparsity and saves most of the inner iterations",
    kind="qualitative",
    criterion="beside exact solutions: objective within 0.5 %, test accuracy within 0.5 points, zero groups within 2 "
    "points; at most half of the inner iterations without early stopping",
)
def quality(quick: bool) -> Outcome:
    """Problem: digits logistic regression (test accuracy on 500 images) and the nonconvex teacher, group LASSO.
    Claim: stopping PG when Q/alpha falls by less than 1e-8 (relative) is as good as 100 iterations.
    Algorithm: RAMDA and ProxGen, batches of 64; PG with early stopping, PG with 100 iterations, exact.
    Theorem: Table 1.
    Reference: Huang & Lee, arXiv:2403.14398, Table 1 (VGG19/CIFAR10, ProxGen: accuracy 92.7 % with and without,
    sparsity 86.9 % with, 88.8 % without).
    Failure would mean: the inexactness the authors practise is felt in the models.
    """
    seeds, steps = size_of(quick)
    rows = {
        (workload, method, stopping): row(workload, method, stopping, seeds, steps)
        for workload in workloads()
        for method in METHODS
        for stopping in STOPPING
    }
    worst = {"objective": 0.0, "accuracy": 0.0, "zero groups": 0.0}
    saved, faster, exact_faster = [], [], []
    for (workload, method, stopping), early in rows.items():
        if stopping == "early":
            exact, none = rows[workload, method, "exact"], rows[workload, method, "none"]
            for name in worst:
                scale = exact[name] if name == "objective" else 1.0
                worst[name] = max(worst[name], abs(np.nan_to_num(early[name] - exact[name])) / scale)
            saved.append(none["inner iterations"] / early["inner iterations"])
            faster.append(none["ms per step"] / early["ms per step"])
            exact_faster.append(early["ms per step"] / exact["ms per step"])
    same = worst["objective"] <= 0.005 and worst["accuracy"] <= 0.005 and worst["zero groups"] <= 0.02
    with style():
        figure = new_figure(5.4, 3.2)
        axes = figure.subplots()
        pairs = [(workload, method) for workload in workloads() for method in METHODS]
        for index, stopping in enumerate(STOPPING):
            heights = [rows[workload, method, stopping]["ms per step"] for workload, method in pairs]
            place = np.arange(len(pairs)) + 0.27 * (index - 1)
            hatch = ("", "//", "..")[index]
            axes.bar(place, heights, 0.25, label=stopping, color=COLOURS[index], hatch=hatch, edgecolor="white")
        axes.set_xticks(range(len(pairs)), [f"{workload}\n{method}" for workload, method in pairs])
        axes.set(yscale="log", ylabel="ms per training step", title="Same models, different inner solvers")
        figure.legend(title="early stopping", ncols=3, loc="outside lower center")
    return Outcome(
        "holds" if same and min(saved) >= 2 else "fails",
        {"rows": {" ".join(key): value for key, value in rows.items()}, "largest differences to exact": worst},
        f"early against exact: objective {worst['objective']:.1e} (relative), accuracy {100 * worst['accuracy']:.1f}, "
        f"zero groups {100 * worst['zero groups']:.1f} points; without it {span(saved)} times the iterations and "
        f"{span(faster)} times the time of a step; exact steps another {span(exact_faster)} times faster",
        {"table_1_quality": figure},
    )


@check(
    "table_1_condition_8",
    claim="The relative decrease rule keeps the residuals of (7) square-summable, (8)",
    kind="upper bound",
    criterion="fitted exponent of RAMDA's residual of (7) in t below -1/2 on both problems",
    expected="fails",
    fault="the method: the stopping rule bounds the decrease of Q_t/alpha_t, so residuals of Q_t grow with alpha_t "
    "(t^0.61); over alpha_t, which is what (20) needs, they fall (t^-0.89).",
)
def condition_8(quick: bool) -> Outcome:
    """Problem: longer runs of table_1_quality with early stopping.
    Claim: the rule in the authors' code yields tolerances that Theorem 2 assumes.
    Algorithm: RAMDA, PG with the relative decrease rule (1e-8, at most 100 iterations).
    Theorem: (7) and (8), assumed by Theorems 2 to 4.
    Reference: Huang & Lee, arXiv:2403.14398, Sections 4 and 5, and the released experiments.
    Failure would mean: theory and experiments do not use the same inexactness; the theory does not cover the latter.
    """
    steps = 300 if quick else 3000
    t = np.arange(1, steps + 1)
    alpha = np.cumsum(np.sqrt(t))
    exponents, relative = {}, {}
    with style():
        figure = new_figure(5.4, 3.2)
        axes = figure.subplots()
        for index, workload in enumerate(workloads()):
            residuals = trained(workload, "RAMDA", "early", 0, steps).record.inner["residual"]
            exponents[workload] = fit_rate(t, residuals, (steps / 10, steps)).exponent
            relative[workload] = fit_rate(t, residuals / alpha, (steps / 10, steps)).exponent
            axes.loglog(t, residuals, label=f"residual of (7), {workload}", linewidth=0.8, **line_style(index))
        axes.loglog(t, 1e-3 * t**-0.5, label="what (8) allows at most, $t^{-1/2}$", **line_style(2))
        axes.set(xlabel="step t", ylabel=r"min $||s||$, $s \in \partial Q_t(\hat{W}_t)$")
        axes.set_title("RAMDA, where the relative decrease rule stops")
        axes.legend()
    return Outcome(
        "holds" if max(exponents.values()) < -0.5 else "fails",
        {"exponents of the residual": exponents, "exponents of residual / alpha_t": relative},
        f"residual of (7) ~ t^a with a = {words(exponents)}: the rule allows a decrease of Q_t of 1e-8 alpha_t, which "
        f"grows.  Residual / alpha_t, all that (20) asks to vanish, has {words(relative)}",
        {"table_1_condition_8": figure},
    )


CHECKS = (quality, condition_8)
