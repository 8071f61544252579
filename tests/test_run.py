"""The loop: one seed, one run; what it records; and how it ends when numbers or arguments are bad."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from runs import BATCHES, METHODS, MILESTONES, PROBLEM, SCHEDULE, STEPS, Interrupting, assert_same, go

from ramda_theory.methods import MADGRAD, RAMDA, ProxSGD, SampledGradient, Schedule
from ramda_theory.problems import group_lasso, low_rank
from ramda_theory.regularizers import L1, MCP, GroupLasso
from ramda_theory.run import Diverged
from ramda_theory.structure import GroupSupport
from ramda_theory.subproblem import ProximalGradient


@pytest.mark.parametrize("name", METHODS)
def test_the_same_arguments_give_the_same_run(name):
    assert_same(go(METHODS[name]), go(METHODS[name]))


def test_what_a_run_records():
    result = go(METHODS["RAMDA"])
    record = result.record
    assert len(record.structures_hat) == len(record.structures_w) == STEPS
    assert record.structures_hat[-1] == PROBLEM.regularizer.structure(result.state.w_hat)
    assert record.structures_w[-1] == PROBLEM.regularizer.structure(result.state.w)
    assert record.metrics["step"].tolist() == [5, 10, 15, 20, 25, 30, 35, 36]
    assert record.metrics["objective"][-1] == PROBLEM.objective(result.state.w_hat)
    assert (np.diff(record.metrics["seconds"]) > 0).all()
    assert record.steps_per_epoch == 6
    assert len(record.inner) == 0
    unmeasured = go(METHODS["RAMDA"], measure_every=0)
    assert len(unmeasured.record.metrics) == 0
    np.testing.assert_array_equal(unmeasured.state.w, result.state.w)


def test_every_structure_is_that_of_its_step():
    """Against a loop that keeps every point."""
    record = go(METHODS["RAMDA"]).record
    method, state = METHODS["RAMDA"], METHODS["RAMDA"].init(PROBLEM.initial)
    for t in range(1, STEPS + 1):
        if t - 1 in MILESTONES:
            state = method.restart(state, SCHEDULE.at(t), 5)
        state, _ = method.step(state, BATCHES(PROBLEM, state.query, t), SCHEDULE.at(t))
        assert record.structures_hat[t - 1] == PROBLEM.regularizer.structure(state.w_hat)
        assert record.structures_w[t - 1] == PROBLEM.regularizer.structure(state.w)


@pytest.mark.parametrize("method", [MADGRAD(), RAMDA(None, solver="accelerated"), RAMDA(L1(0.1), solver="accelerated")])
def test_a_method_with_another_psi_is_held_against_the_problem_s(method):
    problem = group_lasso()
    record = go(method, problem=problem).record
    assert isinstance(record.structures_hat[0], GroupSupport)
    assert record.structures_hat.distances(problem.solution().structure).size == STEPS


def test_ranks_are_those_of_the_solver_s_own_thresholding():
    problem = low_rank()
    seen = []

    def remembering(subproblem, start, tolerance, max_iter):
        candidate = ProximalGradient()(subproblem, start, tolerance, max_iter)
        seen.append(candidate.structure)
        return candidate

    record = go(RAMDA(problem.regularizer, solver=remembering), problem=problem, steps=8).record
    assert [record.structures_hat[t] for t in range(8)] == seen and len(set(seen)) > 1


def test_no_steps_at_all():
    result = go(METHODS["RAMDA"], steps=0)
    assert len(result.record.structures_hat) == len(result.record.metrics) == 0
    np.testing.assert_array_equal(result.state.w, PROBLEM.initial)


# -- when numbers end -----------------------------------------------------------------------------------------------


class Poisoned(Interrupting):
    """A gradient oracle whose gradient holds NaN or Inf at the given steps."""

    def __call__(self, problem, w, t):
        gradient = self.gradients(problem, w, t)
        if t in self.steps:
            gradient = gradient.copy()
            gradient[3] = self.error
        return gradient


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", METHODS)
def test_a_gradient_that_is_not_finite_leaves_the_last_good_state(name, bad, tmp_path):
    path = tmp_path / "run.npz"
    with pytest.raises(Diverged, match="step 13 gave NaN or Inf") as caught:
        go(METHODS[name], gradients=Poisoned(BATCHES, (13,), bad), checkpoint=path)
    assert len(caught.value.record.structures_hat) == len(caught.value.record.structures_w) == 12
    good = go(METHODS[name], steps=12, measure_every=5, checkpoint=path)  # goes on from there, without a step to take
    plain = go(METHODS[name], steps=12, measure_every=5)
    for field in dataclasses.fields(good.state):
        np.testing.assert_array_equal(getattr(good.state, field.name), getattr(plain.state, field.name))
    assert_same(go(METHODS[name], checkpoint=path), go(METHODS[name]))


@pytest.mark.parametrize("name", ["RAMDA", "RMDA", "ProxSGD", "MADGRAD", "FISTA"])
@pytest.mark.parametrize("lr", [1e200, 1e307])
def test_a_learning_rate_beyond_reason_is_reported(name, lr, tmp_path):
    """No warning, no NaN in the record, and a finite state in the checkpoint."""
    path = tmp_path / "run.npz"
    method = METHODS[name]
    try:
        result = go(method, schedule=Schedule(lr), checkpoint=path)
    except Diverged:
        with np.load(path) as data:
            assert np.isfinite(data["state.w"]).all()
    else:  # a preconditioned step may survive any learning rate
        assert np.isfinite(result.state.w).all()


def test_an_objective_beyond_float64_is_divergence():
    """Iterates of 1e199 are finite, their squares are not."""
    method, schedule = ProxSGD(L1(0.1)), Schedule(1e200)
    assert np.isfinite(go(method, 1, schedule=schedule, measure_every=0).state.w).all()
    with pytest.raises(Diverged, match="step 1 gave NaN or Inf") as caught:
        go(method, 1, schedule=schedule, measure_every=1)
    assert len(caught.value.record.structures_hat) == len(caught.value.record.metrics) == 0


def test_diverging_gradient_steps_end_in_diverged():
    with pytest.raises(Diverged, match="learning rate is too large"):
        go(ProxSGD(L1(0.1)), steps=2000, schedule=Schedule(1e3), measure_every=0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"steps": -1}, ValueError, "steps must be at least 0, got -1"),
        ({"steps": 1.5}, TypeError, "steps must be an integer, got 1.5"),
        ({"measure_every": -1}, ValueError, "measure_every must be at least 0"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every must be at least 1, got 0"),
        (
            {"gradients": SampledGradient(201)},
            ValueError,
            "at most the number of samples, 200, got 201",
        ),
        ({"method": RAMDA(L1(0.1), solver="newton")}, ValueError, "method must be one of"),
        ({"method": RAMDA(GroupLasso(0.1, dims=(3,)))}, ValueError, "dims must name axes"),
        ({"method": RAMDA(MCP(0.1, 2.0), solver="accelerated")}, ValueError, "needs a convex regularizer"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message, tmp_path):
    path = tmp_path / "run.npz"
    with pytest.raises(error, match=message):
        go(**({"method": METHODS["RAMDA"]} | arguments), checkpoint=path)
    assert not path.exists()


def test_the_progress_bar_shows_and_goes(capsys):
    go(METHODS["RAMDA"], progress="RAMDA lr 0.05")
    assert "RAMDA lr 0.05" in capsys.readouterr().err
    go(METHODS["RAMDA"])
    assert capsys.readouterr() == ("", "")
