"""Variance reduction: how close each method's estimate of the gradient comes, and how often its structure flips.

Quick runs take half the epochs and, on the planted problem, a third of the steps.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from paper_checks.check import Outcome, check
from paper_checks.theorem_2_limits import falls, words
from ramda_theory.diagnostics import Rate, Record, Table, changes_per_epoch, fit_rate
from ramda_theory.drawing import line_style, new_figure, style
from ramda_theory.experiments.settings import Setting
from ramda_theory.methods import RAMDA, RMDA, NoisyGradient, ProxSGD, SampledGradient, Schedule
from ramda_theory.problems import digits, lasso
from ramda_theory.run import run

EPOCHS, BATCH, PER_EPOCH = 100, 64, 28
STAGES = (20, 40, 60, 80)

DUAL_AVERAGING = {
    "RAMDA, stages": Setting("RAMDA", 1e-1, 0.1, STAGES, grow=True),
    "RAMDA, stages, memory 200": Setting("RAMDA", 1e-1, 0.1, STAGES, grow=True, memory=200),
    "RAMDA, lr 0.01": Setting("RAMDA", 1e-2),
    "RMDA, stages": Setting("RMDA", 1.0, 0.1, STAGES, grow=True),
    "RMDA, lr 1": Setting("RMDA", 1.0),
}
MOMENTUM = {
    "ProxSGD, decay": Setting("ProxSGD", 1.0, 0.1, STAGES),
    "ProxSGD, lr 0.1": Setting("ProxSGD", 0.1, 0.1),
    "ProxAdamW, decay": Setting("ProxAdamW", 1e-2, milestones=STAGES),
    "ProxAdamW, lr 0.001": Setting("ProxAdamW", 1e-3),
}
EXCEPTION = {"ProxSGD, decay, averaging 0.01": Setting("ProxSGD", 1.0, 0.01, STAGES)}
"""Slow momentum is variance reduction too, at the price of a long delay."""

WITH_STAGES = ("RAMDA, stages", "RAMDA, stages, memory 200", "RMDA, stages")
SHOWN = (*WITH_STAGES, "RAMDA, lr 0.01", "ProxSGD, decay", "ProxAdamW, decay", *EXCEPTION)


@cache
def records(quick: bool) -> dict[str, Record]:
    """Runs of all settings on the digits."""
    problem = digits()
    epochs = EPOCHS // 2 if quick else EPOCHS
    result = {}
    for label, setting in (DUAL_AVERAGING | MOMENTUM | EXCEPTION).items():
        method, schedule = setting.scaled(epochs / EPOCHS).build(problem, PER_EPOCH)
        gradients = SampledGradient(BATCH, seed=0)
        result[label] = run(
            problem, method, schedule, PER_EPOCH * epochs, gradients=gradients, measure_every=PER_EPOCH // 4
        ).record
    return result


def late(values: np.ndarray, share: float) -> np.ndarray:
    """The last ``share`` of the values."""
    return values[-max(1, round(share * len(values))) :]


def late_error(record: Record) -> float:
    """Root mean square of ||estimate - grad f(W_t)|| over the last tenth of the run."""
    return float(np.sqrt(np.mean(late(record.metrics["gradient_error"], 0.1) ** 2)))


def late_flips(record: Record) -> float:
    """Flips of structure per epoch in the last tenth of the run."""
    return float(np.mean(late(changes_per_epoch(record.structures_hat, PER_EPOCH), 0.1)))


def shown_figure(quick: bool) -> Any:
    """Gradient errors, smoothed over two epochs, and flips of structure since the start."""
    with style():
        figure = new_figure(7.2, 3.8)
        error_axes, flip_axes = figure.subplots(1, 2)
        for index, label in enumerate(SHOWN):
            record = records(quick)[label]
            look = line_style(index) | {"linewidth": 1.3}
            squares = record.metrics["gradient_error"] ** 2
            smooth = np.sqrt(np.convolve(squares, np.ones(8) / 8, mode="valid"))
            error_axes.semilogy(record.metrics["step"][7:] / PER_EPOCH, smooth, label=label, **look)
            flips = changes_per_epoch(record.structures_hat, PER_EPOCH)
            flip_axes.plot(np.arange(1, len(flips) + 1), np.cumsum(flips), **look)
        error_axes.set(xlabel="epoch", ylabel=r"$\|$gradient estimate $- \nabla f(W_t)\|$", title="Digits: error")
        flip_axes.set(xlabel="epoch", ylabel="flips of pixels since the start", title="Digits: flips of structure")
        flip_axes.set_yscale("symlog", linthresh=100)
        figure.legend(*error_axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


@check(
    "variance_reduction_error",
    claim="||V/alpha - grad f|| of RAMDA and RMDA falls to zero over their stages; the error of a momentum does not",
    kind="qualitative",
    criterion="with stages its fitted power of t is below 0 by more than its interval, and at the end the momentum "
    "of ProxSGD (0.1) and ProxAdamW (0.1) errs at least 5 times as much",
)
def error(quick: bool) -> Outcome:
    """Problem: multinomial logistic regression on the digits, group LASSO per pixel, batches of 64, 100 epochs.
    Claim: averages over all gradients estimate grad f(W_t) better and better, averages over the last ten do not.
    Algorithm: RAMDA and RMDA with and without stages; ProxSGD and ProxAdamW with and without decay of the lr.
    Theorem: (18) of Theorem 2; the paper's explanation of why the others do not identify.
    Reference: Huang & Lee, arXiv:2403.14398, Sections 2 and 5.
    Failure would mean: the paper's explanation of identification is not the right one.
    """
    runs = records(quick)
    rates: dict[str, Rate] = {
        label: fit_rate(record.metrics["step"], record.metrics["gradient_error"]) for label, record in runs.items()
    }
    ends = {label: late_error(record) for label, record in runs.items()}
    worst = max(ends[label] for label in WITH_STAGES)
    quotient = min(ends[label] for label in MOMENTUM) / worst
    holds = all(falls(rates[label]) for label in WITH_STAGES) and quotient >= 5
    exception = next(iter(EXCEPTION))
    return Outcome(
        "holds" if holds else "fails",
        {label: {"power": rates[label].exponent, "at the end": ends[label]} for label in runs},
        "error at the end: "
        + ", ".join(f"{value:.1e} ({label})" for label, value in ends.items() if label != exception)
        + f"; least momentum / largest with stages: {quotient:.1f}.  With averaging 0.01 and decay ProxSGD's "
        f"momentum does as well: {ends[exception]:.1e}",
        {"variance_reduction": shown_figure(quick)},
    )


@check(
    "variance_reduction_flips",
    claim="Methods with variance reduction stop flipping the structure, the others do not",
    kind="qualitative",
    criterion="flips in the last tenth of the run: none for RAMDA and RMDA in all settings, some for ProxSGD (0.1) and "
    "ProxAdamW in all settings",
)
def flips(quick: bool) -> Outcome:
    """Problem: as in variance_reduction_error.
    Claim: What_t of dual averaging stays on one manifold; the iterates of the others keep leaving it.
    Algorithm: as in variance_reduction_error.
    Theorem: Theorem 3, and the paper's remark that methods without variance reduction need not identify.
    Reference: Huang & Lee, arXiv:2403.14398, Sections 1 and 5.
    Failure would mean: the difference in structure between the methods has another cause.
    """
    runs = records(quick)
    rates = {label: late_flips(record) for label, record in runs.items()}
    still = max(rates[label] for label in DUAL_AVERAGING)
    least = min(rates[label] for label in MOMENTUM)
    exception = next(iter(EXCEPTION))
    return Outcome(
        "holds" if still == 0 and least > 0 else "fails",
        {"flips per epoch": rates},
        "flips per epoch at the end: "
        + ", ".join(f"{value:.2g} ({label})" for label, value in rates.items() if label != exception)
        + f"; ProxSGD with averaging 0.01 and decay: {rates[exception]:.2g}",
    )


@cache
def planted_errors(lr: float, method: str, quick: bool) -> Table:
    """Errors of an estimate against grad f(W_t) and grad f(w*), constant settings, independent noise."""
    problem = lasso()
    psi, solution = problem.regularizer, problem.solution()
    methods: dict[str, Any] = {"RAMDA": RAMDA(psi), "RMDA": RMDA(psi), "ProxSGD": ProxSGD(psi)}
    own, schedule = methods[method], Schedule(lr, 0.1 if method == "ProxSGD" else 1.0)
    gradients, steps = NoisyGradient(0.05, seed=0), 3000 if quick else 10_000
    at_solution = problem.gradient(solution.point)
    points = set(np.unique(np.geomspace(10, steps, 60).astype(int)))
    state, table = own.init(problem.initial), Table()
    squares: list[tuple[float, float]] = []
    for t in range(1, steps + 1):
        at_w = problem.gradient(state.w)
        state, _ = own.step(state, gradients(problem, state.query, t), schedule.at(t))
        estimate = state.momentum if method == "ProxSGD" else state.grad_sum / state.weight_sum
        squares.append((float(np.sum((estimate - at_w) ** 2)), float(np.sum((estimate - at_solution) ** 2))))
        if t in points:
            here, there = np.sqrt(np.mean(squares, axis=0))
            table.append(step=t, here=here, solution=there)
            squares = []
    return table


@check(
    "variance_reduction_constant",
    claim="||V/alpha - grad f(W_t)|| -> 0, (18), within a stage: constant lr, persistent noise",
    kind="qualitative",
    criterion="its fitted power of t is below 0 by more than its interval for RAMDA (lr 0.1, 0.01) and RMDA (lr 1)",
    expected="fails",
    fault="the setting: at constant lr W_t does not converge, so V/alpha, which does, tends to the gradient at w* "
    "(t^-0.54, t^-0.87) and not to that at W_t (t^0.00, t^-0.14).",
)
def constant(quick: bool) -> Outcome:
    """Problem: planted LASSO, gradients with independent noise of constant size.
    Claim: dual averaging removes the noise of the gradient estimate without any decay of the lr.
    Algorithm: RAMDA and RMDA without averaging; ProxSGD with a momentum of averaging 0.1.
    Theorem: (18) of Theorem 2.
    Reference: Huang & Lee, arXiv:2403.14398, Section 5; Huang & Lee (2022) for RMDA.
    Failure would mean: W_t itself wanders at constant lr, and V/alpha averages grad f over its path: what converges is
    V/alpha, to grad f(w*), which is what identification needs.
    """
    cases = {
        "RAMDA, lr 0.1": planted_errors(0.1, "RAMDA", quick),
        "RAMDA, lr 0.01": planted_errors(0.01, "RAMDA", quick),
        "RMDA, lr 1": planted_errors(1.0, "RMDA", quick),
        "ProxSGD, lr 0.1": planted_errors(0.1, "ProxSGD", quick),
    }
    window = (300.0, float(cases["RMDA, lr 1"]["step"][-1]))
    rates = {
        label: {name: fit_rate(table["step"], table[name], window) for name in ("here", "solution")}
        for label, table in cases.items()
    }
    judged = [rates[label]["here"] for label in list(cases)[:3]]
    with style():
        figure = new_figure(7.2, 3.6)
        both = figure.subplots(1, 2, sharey=True)
        titles = (r"$\|$estimate $- \nabla f(W_t)\|$", r"$\|$estimate $- \nabla f(w^\star)\|$")
        for axes, name, title in zip(both, ("here", "solution"), titles, strict=True):
            for index, (label, table) in enumerate(cases.items()):
                text = f"{label}: $t^{{{rates[label][name].exponent:.2f}}}$"
                axes.loglog(table["step"], table[name], label=text, linewidth=1.4, **line_style(index))
            axes.set(xlabel="iteration t", title=title)
            axes.legend()
        both[0].set_ylabel("error of the gradient estimate")
    averages = list(cases)[:3]
    return Outcome(
        "holds" if all(map(falls, judged)) else "fails",
        {
            label: {name: [fitted.exponent, fitted.uncertainty] for name, fitted in both.items()}
            | {"at the end": [cases[label]["here"][-1], cases[label]["solution"][-1]]}
            for label, both in rates.items()
        },
        "powers of t of ||V/alpha - grad f(W_t)||: "
        + ", ".join(f"{words(rates[label]['here'])} ({label})" for label in averages)
        + "; of ||V/alpha - grad f(w*)||: "
        + ", ".join(f"{words(rates[label]['solution'])} ({label})" for label in averages)
        + ".  V/alpha converges; W_t does not",
        {"variance_reduction_constant": figure},
    )


CHECKS = (error, flips, constant)
