"""Measurements of states against direct computation, and the inequality (28) they must satisfy along runs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ramda_theory.diagnostics import fit_rate, measure
from ramda_theory.methods import FISTA, RAMDA, RMDA, NoisyGradient, ProxGen, ProxSGD, SampledGradient, Schedule
from ramda_theory.problems import PROBLEMS, group_lasso, lasso, low_rank, mcp
from ramda_theory.run import run
from ramda_theory.subproblem import PolynomialTolerance


def test_measurements_of_dual_averaging_by_hand():
    """Each quantity from the state's own numbers and the LASSO's data."""
    problem = lasso()
    A, y, lam, n = problem._A, problem._y, 0.1, 200
    method = RAMDA(problem.regularizer)
    state = run(problem, method, Schedule(0.05, averaging=0.3), 40, gradients=SampledGradient(20)).state
    row = measure(problem, method, state)

    def f(w):
        return np.sum((A @ w - y) ** 2) / (2 * n)

    def grad(w):
        return A.T @ (A @ w - y) / n

    def distance_to_zero(w, g, weight):
        return np.linalg.norm(
            [gi + weight * np.sign(wi) if wi else max(abs(gi) - weight, 0.0) for wi, gi in zip(w, g, strict=True)]
        )

    w, w_hat, v, alpha, p = state.w, state.w_hat, state.grad_sum, state.weight_sum, state.metric
    direct = {
        "objective": f(w_hat) + lam * np.sum(np.abs(w_hat)),
        "objective_w": f(w) + lam * np.sum(np.abs(w)),
        "stationarity": distance_to_zero(w_hat, grad(w_hat), lam),
        "gradient_error": np.linalg.norm(v / alpha - grad(w)),
        "model_error": np.linalg.norm(grad(w_hat) - v / alpha),
        "metric_error": np.linalg.norm(p * (w_hat - state.anchor)) / alpha,
        "metric_norm": max(p) / alpha,
    }
    assert row.keys() == direct.keys() | {"subproblem_error"}
    for name, value in direct.items():
        assert row[name] == pytest.approx(value, rel=1e-11), name
    residual = distance_to_zero(w_hat, v + p * (w_hat - state.anchor), alpha * lam) / alpha
    assert row["subproblem_error"] <= 1e-15 and residual <= 1e-15
    moved = w_hat + 1e-3 * (w_hat != 0)
    inexact = measure(problem, method, type(state)(**(state.__dict__ | {"w_hat": moved})))
    residual = distance_to_zero(moved, v + p * (moved - state.anchor), alpha * lam) / alpha
    assert inexact["subproblem_error"] == pytest.approx(residual, rel=1e-9) and residual > 1e-5


@pytest.mark.parametrize(
    ("method", "estimate"),
    [
        (ProxSGD(None), lambda state, t: state.momentum),
        (ProxGen(None), lambda state, t: state.momentum / (1 - 0.9**t)),
        (
            ProxGen(None, betas=(lambda t: 0.5**t, 0.9)),
            lambda state, t: state.momentum / (1 - 0.5 ** (t * (t + 1) // 2)),
        ),
        (RMDA(None), lambda state, t: state.grad_sum / sum(0.1 * math.sqrt(k) for k in range(1, t + 1))),
    ],
)
def test_gradient_error_of_every_estimate(method, estimate):
    problem = lasso()
    for t in (1, 2, 7):
        state = run(problem, method, Schedule(0.1, 0.3), t).state
        expected = np.linalg.norm(estimate(state, t) - problem.gradient(state.w))
        assert measure(problem, method, state)["gradient_error"] == pytest.approx(expected, rel=1e-11)


def test_a_bias_corrected_estimate_is_the_gradient_when_the_gradient_does_not_change():
    problem = lasso()
    for method in (ProxGen(None), RAMDA(None)):
        # A learning rate this small leaves w, and with it the gradient, where it is.
        state = run(problem, method, Schedule(1e-30), 9).state
        size = np.linalg.norm(problem.gradient(state.w))
        assert measure(problem, method, state)["gradient_error"] <= 1e-12 * size


def test_deterministic_methods_have_no_estimate():
    problem = lasso()
    row = measure(problem, FISTA(problem.regularizer), FISTA(problem.regularizer).init(problem.initial))
    assert row.keys() == {"objective", "objective_w", "stationarity"}


def test_at_the_start_of_a_stage_what_was_not_solved_is_nan():
    problem = lasso()
    method = RAMDA(problem.regularizer)
    row = measure(problem, method, method.init(problem.initial))
    unknown = {"gradient_error", "model_error", "subproblem_error", "metric_error", "metric_norm"}
    assert {name for name, value in row.items() if math.isnan(value)} == unknown
    state = run(problem, method, Schedule(0.1), 5).state
    row = measure(problem, method, method.restart(state, Schedule(0.1).at(6), memory=3))
    assert {name for name, value in row.items() if math.isnan(value)} == unknown - {"gradient_error", "model_error"}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("kind", [RAMDA, RMDA])
def test_inequality_28_holds_along_runs(kind, name):
    """dist(0, dF(What)) <= ||grad f(What) - V/alpha|| + min||s||/alpha + ||P (What - W^0)||/alpha."""
    problem = PROBLEMS[name]()
    lr = 0.02 if kind is RAMDA else 1.0 / (problem.lipschitz or 1.0)
    schedule = Schedule(lr, averaging=0.5, milestones=(15,))
    gradients = SampledGradient(min(32, problem.samples), seed=3)
    metrics = run(problem, kind(problem.regularizer), schedule, 24, gradients=gradients, measure_every=3).record.metrics
    bound = metrics["model_error"] + metrics["subproblem_error"] + metrics["metric_error"]
    assert len(bound) == 8 and np.isfinite(bound).all()
    assert (metrics["stationarity"] <= bound * (1 + 1e-10) + 1e-14).all()


@pytest.mark.parametrize("make", [lasso, group_lasso, low_rank, mcp])
def test_inequality_28_holds_for_inexact_solutions(make):
    problem = make()
    method = RAMDA(problem.regularizer, solver="proximal_gradient")
    schedule = Schedule(0.05, tolerance=PolynomialTolerance(1.0, 0.6))
    metrics = run(problem, method, schedule, 30, gradients=NoisyGradient(0.1), measure_every=1).record.metrics
    bound = metrics["model_error"] + metrics["subproblem_error"] + metrics["metric_error"]
    assert (metrics["stationarity"] <= bound * (1 + 1e-10)).all()
    assert metrics["subproblem_error"].max() > 1e-6


def test_the_metric_vanishes_at_its_rate():
    """(22): P/alpha falls as alpha^(-2/3), which is 1/t for a constant learning rate."""
    problem = lasso()
    noise = NoisyGradient(0.3)
    record = run(problem, RAMDA(problem.regularizer), Schedule(0.05), 4000, gradients=noise, measure_every=50).record
    rate = fit_rate(record.metrics["step"], record.metrics["metric_norm"])
    assert rate.exponent == pytest.approx(-1.0, abs=0.02)
