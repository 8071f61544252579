"""Slips 6 to 9 of arXiv:2403.14398: those that whole runs show; see `slips`."""

from __future__ import annotations

from typing import Any

import numpy as np

from paper_checks.check import Outcome, check
from paper_checks.theorem_4 import exponent, trajectory
from ramda_theory.diagnostics import fit_rate, identification
from ramda_theory.methods import RAMDA, NoisyGradient, SampledGradient, Schedule, Settings
from ramda_theory.problems import group_lasso, lasso
from ramda_theory.run import run


def verdict(holds: bool, measured: dict[str, Any], reason: str) -> Outcome:
    """An outcome without a figure."""
    return Outcome("holds" if holds else "fails", measured, reason)


@check(
    "slip_06",
    claim="(29) writes grad f o grad f where (17) has E[g o g]; harmless, as P_t/alpha_t vanishes like alpha_t^(-2/3)",
    kind="tight",
    criterion="U/alpha is at least 3 times closer to E[g o g] than to grad f o grad f; max P/alpha ~ alpha^a with a "
    "within 0.05 of -2/3",
)
def squares(quick: bool) -> Outcome:
    """Problem: planted LASSO, single samples.
    Claim: U_t averages squared stochastic gradients, whose noise does not average out.
    Algorithm: RAMDA, lr 1e-2.
    Theorem: (17), (22) and (29), proof of Theorem 2.
    Reference: Huang & Lee, arXiv:2403.14398, Appendix B.
    Failure would mean: (29) is right as printed, or the slip matters.
    """
    problem, count = lasso(), 5000 if quick else 10_000
    result = run(
        problem,
        RAMDA(problem.regularizer),
        Schedule(1e-2),
        count,
        gradients=SampledGradient(1),
        measure_every=count // 60,
    )
    w, average = result.state.w, result.state.grad_sq_sum / result.state.weight_sum
    assert problem.samples is not None
    squared = np.mean([problem.batch_gradient(w, np.array([i])) ** 2 for i in range(problem.samples)], axis=0)
    to_squared = float(np.linalg.norm(average - squared) / np.linalg.norm(average))
    to_gradient = float(np.linalg.norm(average - problem.gradient(w) ** 2) / np.linalg.norm(average))
    alpha = np.cumsum(np.sqrt(np.arange(1, count + 1)))[result.record.metrics["step"].astype(int) - 1]
    power = fit_rate(alpha, result.record.metrics["metric_norm"]).exponent
    return verdict(
        to_gradient >= 3 * to_squared and abs(power + 2 / 3) <= 0.05,
        {"to E[g o g]": to_squared, "to grad f o grad f": to_gradient, "exponent of max P/alpha": power},
        f"relative distance of U/alpha: {to_squared:.2g} to E[g o g], {to_gradient:.2g} to grad f o grad f; max "
        f"P/alpha ~ alpha^{power:.3f}",
    )


@check(
    "slip_07",
    claim="Theorem 3 speaks of What_t; with a constant c_t < 1 the trained W_t does not have its structure",
    kind="qualitative",
    criterion="at the end no wrong group in What_t, some in W_t with c = 0.1; none in either if c_t grows to 1",
)
def averaged_iterate(quick: bool) -> Outcome:
    """Problem: planted group LASSO, batches of 50.
    Claim: W_t = (1 - c) W_(t-1) + c What_t keeps (1 - c)^t of what it once had in a group; only c_t = 1 clears it.
    Algorithm: RAMDA, c = 0.1 and c_t = min(0.1 sqrt t, 1).
    Theorem: Theorem 3 and the experiments, which report the structure of the model; their low-rank level is What's.
    Reference: Huang & Lee, arXiv:2403.14398, Theorem 3, Appendix A.1 and the released experiments.
    Failure would mean: the averaging is harmless for structure.
    """
    problem, count = group_lasso(), 1000 if quick else 3000
    target = problem.solution().structure
    wrong = {}
    for name, grow in (("c = 0.1", False), ("c_t to 1", True)):
        schedule = Schedule(1e-1, 0.1, grow_averaging=grow)
        record = run(problem, RAMDA(problem.regularizer), schedule, count, gradients=SampledGradient(50)).record
        traces = {"What": record.structures_hat, "W": record.structures_w}
        wrong[name] = {which: identification(trace, target).final_error for which, trace in traces.items()}
    return verdict(
        wrong["c = 0.1"]["What"] == 0 < wrong["c = 0.1"]["W"] and not any(wrong["c_t to 1"].values()),
        wrong,
        f"wrong groups of 20 after {count} steps: c = 0.1 {wrong['c = 0.1']}, growing c {wrong['c_t to 1']}",
    )


@check(
    "slip_08",
    claim="(14), ||W_{t+1} - W_t|| alpha_t/s_t -> 0, fails for constant c and eta with persistent gradient noise",
    kind="lower bound",
    criterion="fitted exponent of ||W_{t+1} - W_t|| alpha_t/s_t in t above 0 with noise",
)
def small_steps(quick: bool) -> Outcome:
    """Problem: planted LASSO, gradients with normal noise of deviation 0.1.
    Claim: the step per gradient, s_t/P_t, does not vanish, so that ||W_{t+1} - W_t|| does not fall like o(1/t).
    Algorithm: RAMDA, lr 1e-2, c = 0.5.
    Theorem: (14), assumed by Theorem 2.
    Reference: Huang & Lee, arXiv:2403.14398, Theorem 2.
    Failure would mean: the practical schedule satisfies (14) by itself.
    """
    problem, count = lasso(), 1000 if quick else 4000
    method, noise = RAMDA(problem.regularizer), NoisyGradient(0.1)
    state, values = method.init(problem.initial), np.empty(count)
    for t in range(1, count + 1):
        before = state.w
        state, _ = method.step(state, noise(problem, before, t), Settings(1e-2, averaging=0.5))
        values[t - 1] = np.linalg.norm(state.w - before) * state.weight_sum / (1e-2 * np.sqrt(t))
    rate = fit_rate(np.arange(1, count + 1), values, (count / 20, count))
    return verdict(
        rate.exponent > 0,
        {"exponent": rate.exponent, "uncertainty": rate.uncertainty, "last value": values[-1]},
        f"||W_(t+1) - W_t|| alpha_t/s_t ~ t^({rate.exponent:.2f} +- {rate.uncertainty:.2f}), {values[-1]:.3g} at last",
    )


@check(
    "slip_09",
    claim="Theorem 4 needs rho_t = rho_0 mu^(t-1) -> 0; AdamW's constant 0.9 is not covered, and does no harm here",
    kind="qualitative",
    criterion="exponent in T of the average of dist(0, dF)^2 with constant rho within 0.1 of the one with decaying rho",
)
def constant_momentum(quick: bool) -> Outcome:
    """Problem: planted LASSO, gradient noise of variance 1/t.
    Claim: the assumption C-3 serves the proof; the rate is also that of the constant momentum of practice.
    Algorithm: ProxGen as in theorem_4_batches, with rho_t = 0.9 * 0.9^(t-1) and with rho_t = 0.9.
    Theorem: Theorem 4, C-3.
    Reference: Huang & Lee, arXiv:2403.14398, Theorem 4; Yun, Lozano & Yang (2021).
    Failure would mean: constant momentum has a rate of its own.
    """
    count = 400 if quick else 2000
    runs = {
        "decaying": trajectory(lasso(), count, 1.0, float),
        "constant": trajectory(lasso(), count, 1.0, float, rho=lambda t: 0.9),
    }
    exponents = {name: exponent(one.average) for name, one in runs.items()}
    ends = {name: float(one.average[-1]) for name, one in runs.items()}
    return verdict(
        abs(exponents["constant"] - exponents["decaying"]) <= 0.1,
        {"exponents": exponents, "averages at the end": ends},
        f"exponents {exponents['decaying']:.2f} (decaying) and {exponents['constant']:.2f} (constant), averages "
        f"{ends['decaying']:.2g} and {ends['constant']:.2g} after {count} steps",
    )


CHECKS = (squares, averaged_iterate, small_steps, constant_momentum)
