"""Stages, decays, the last stage's averaging, restarts with and without memory, and what a schedule refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from backends import DOUBLE, to_numpy
from hypothesis import given
from hypothesis import strategies as st
from recurrences import minimiser

from ramda_theory import optim
from ramda_theory.methods import MADGRAD, RAMDA, RDA, RMDA, FullGradient, ProxGen, ProxSGD, Schedule, Settings
from ramda_theory.problems import lasso
from ramda_theory.regularizers import L1, GroupLasso
from ramda_theory.run import run
from ramda_theory.subproblem import PolynomialTolerance


@given(
    lr=st.floats(1e-6, 10.0),
    c=st.floats(0.0, 1.0),
    eps=st.floats(1e-12, 1e-2),
    gamma=st.floats(0.05, 1.0),
    gaps=st.lists(st.integers(1, 20), max_size=4),
    grow=st.booleans(),
)
def test_stages_by_counting_steps(lr, c, eps, gamma, gaps, grow):
    """A loop that walks through the stages, multiplying by gamma at each milestone and counting steps taken."""
    milestones = tuple(np.cumsum(gaps).tolist())
    schedule = Schedule(lr, c, eps, milestones, gamma, grow_averaging=grow)
    eta, small, taken, left = lr, eps, 0, list(milestones)
    for t in range(1, sum(gaps) + 30):
        starts = bool(left) and t == left[0] + 1
        if starts:
            left.pop(0)
            eta, small, taken = eta * gamma, small * gamma, 0
        taken += 1
        averaging = min(c * math.sqrt(taken), 1.0) if grow and not left else c
        settings = schedule.at(t)
        assert schedule.starts_stage(t) == starts
        assert settings.lr == pytest.approx(eta, rel=1e-13)
        assert settings.eps == pytest.approx(small, rel=1e-13)
        assert settings.averaging == averaging
        assert settings.tolerance is None


def test_a_growing_average_reaches_one_after_c_to_the_minus_two_steps():
    schedule = Schedule(1.0, 0.1, milestones=(50,), grow_averaging=True)
    values = [schedule.at(t).averaging for t in range(1, 200)]
    assert set(values[:50]) == {0.1}
    assert values[50] == 0.1 and values[53] == 0.2
    assert values[50 + 98] < 1.0 and set(values[50 + 99 :]) == {1.0}
    alone = Schedule(1.0, 0.5, grow_averaging=True)
    assert [alone.at(t).averaging for t in (1, 2, 3, 4, 5)] == [0.5, 0.5 * math.sqrt(2), 0.5 * math.sqrt(3), 1.0, 1.0]


def test_functions_of_the_step():
    """They see the step of the run, not of the stage; lr decays on top, and any number type is taken as a float."""
    schedule = Schedule(
        lambda t: np.float32(1.0) / t,
        lambda t: np.asarray(0.5**t),
        milestones=(2,),
        tolerance=PolynomialTolerance(3.0, power=2.0),
    )
    assert schedule.at(1) == Settings(1.0, 0.5, 1e-6, 3.0)
    third = schedule.at(3)
    assert third.lr == pytest.approx(0.1 / 3) and third.averaging == 0.125 and third.tolerance == 3.0 / 9
    assert all(type(value) is float for value in (third.lr, third.averaging, third.eps, third.tolerance))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"lr": -1.0}, ValueError, "lr must be finite and >= 0, got -1.0"),
        ({"lr": math.nan}, ValueError, "lr must be finite"),
        ({"lr": "1"}, TypeError, "lr must be a real number, got '1'"),
        ({"averaging": 1.1}, ValueError, r"averaging must be in \[0, 1\], got 1.1"),
        ({"averaging": -0.1}, ValueError, "averaging must be"),
        ({"averaging": math.nan}, ValueError, "averaging must be"),
        ({"eps": 0.0}, ValueError, "eps must be finite and > 0, got 0.0"),
        ({"gamma": 0.0}, ValueError, "gamma must be finite and > 0, got 0.0"),
        ({"gamma": math.inf}, ValueError, "gamma must be finite"),
        ({"milestones": (5, 5)}, ValueError, r"milestones must be positive and increasing, got \(5, 5\)"),
        ({"milestones": (0, 5)}, ValueError, "milestones must be positive"),
        ({"milestones": (9, 5)}, ValueError, "milestones must be positive"),
        ({"milestones": (2.5,)}, TypeError, "milestones must be an integer or a sequence of integers"),
        ({"memory": -1}, ValueError, "memory must be at least 0, got -1"),
        ({"memory": 1.5}, TypeError, "memory must be an integer, got 1.5"),
        ({"memory": (3,)}, TypeError, "memory must be an integer"),
        ({"tolerance": 1e-3}, TypeError, "tolerance must be a function of t such as PolynomialTolerance, got 0.001"),
    ],
)
def test_bad_schedules_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Schedule(**({"lr": 0.1} | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": lambda t: -1.0 / t}, "lr must be finite and >= 0, got -0.25"),
        ({"lr": lambda t: math.nan}, "lr must be"),
        ({"averaging": lambda t: t / 3}, "averaging must be"),
        ({"tolerance": lambda t: -t}, "tolerance must be finite and >= 0, got -4"),
        ({"gamma": 1e-200, "milestones": (1, 2)}, "eps must be finite and > 0, got 0.0"),
        ({"lr": 100.0, "gamma": 1e308, "milestones": (1,)}, "lr must be finite"),
    ],
)
def test_values_out_of_range_are_refused_at_their_step(arguments, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**({"lr": 0.1} | arguments)).at(4)


# -- restarts -------------------------------------------------------------------------------------------------------

SIZE = 6


def after_some_steps(method, backend, count: int = 9, seed: int = 0):
    rng = np.random.default_rng(seed)
    state = method.init(backend.array(rng.standard_normal(SIZE)))
    for t in range(1, count + 1):
        state, _ = method.step(state, backend.array(rng.standard_normal(SIZE)), Settings(0.3 / t, 0.4, 1e-3))
    return state


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
@pytest.mark.parametrize("method", [RAMDA(L1(0.1)), RMDA(L1(0.1))], ids=["RAMDA", "RMDA"])
def test_a_restart_forgets(method, backend):
    """t, alpha, V, U back to 0 and W^0 at the current W, as published."""
    state = after_some_steps(method, backend)
    again = method.restart(state, Settings(0.03))
    assert again.w is state.w and again.anchor is state.w and again.w_hat is state.w
    assert (again.step, again.weight_sum, again.metric) == (0, 0.0, None)
    assert (to_numpy(again.grad_sum) == 0).all()
    assert again.grad_sq_sum is None if state.grad_sq_sum is None else (to_numpy(again.grad_sq_sum) == 0).all()
    fresh = method.init(state.w)
    one, other = (method.step(s, backend.array(np.ones(SIZE)), Settings(0.03, 0.5))[0] for s in (again, fresh))
    np.testing.assert_array_equal(to_numpy(one.w), to_numpy(other.w))


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
@pytest.mark.parametrize("memory", [1, 7, 200])
@pytest.mark.parametrize("method", [RAMDA(L1(0.1)), RMDA(L1(0.1))], ids=["RAMDA", "RMDA"])
def test_a_restart_with_memory_keeps_the_averages(method, memory, backend):
    state = after_some_steps(method, backend)
    again = method.restart(state, Settings(0.03), memory)
    alpha = 0.0
    for k in range(1, memory + 1):
        alpha += 0.03 * math.sqrt(k)
    assert again.step == memory and again.weight_sum == pytest.approx(alpha, rel=1e-13)
    for name in ("grad_sum", "grad_sq_sum"):
        old, new = getattr(state, name), getattr(again, name)
        if old is None:
            assert new is None
        else:
            np.testing.assert_allclose(
                to_numpy(new) / again.weight_sum, to_numpy(old) / state.weight_sum, rtol=1e-14, atol=0
            )
    # The next step counts as step memory + 1 of the new learning rate.
    after, _ = method.step(again, backend.array(np.ones(SIZE)), Settings(0.03))
    assert after.weight_sum == pytest.approx(alpha + 0.03 * math.sqrt(memory + 1), rel=1e-13)
    twice = method.restart(again, Settings(0.03), memory)
    np.testing.assert_array_equal(to_numpy(twice.grad_sum), to_numpy(again.grad_sum))


def test_a_restart_with_memory_of_nothing_keeps_nothing():
    method = RAMDA(L1(0.1))
    for state in (method.init(np.ones(3)), method.step(method.init(np.ones(3)), np.ones(3), Settings(0.0))[0]):
        again = method.restart(state, Settings(0.1), 50)
        assert (again.step, again.weight_sum) == (0, 0.0) and (again.grad_sum == 0).all()


@pytest.mark.parametrize("method", [ProxSGD(L1(0.1)), ProxGen(L1(0.1))], ids=["ProxSGD", "ProxGen"])
def test_stages_of_methods_without_dual_averaging_only_decay_the_learning_rate(method):
    problem = lasso()
    staged = run(problem, method, Schedule(0.1, 0.3, milestones=(4, 9), gamma=0.5, memory=7), 15)

    def plain(t: int) -> float:
        return 0.1 * (0.5 if 4 < t <= 9 else 0.25 if t > 9 else 1.0)

    np.testing.assert_array_equal(staged.state.w, run(problem, method, Schedule(plain, 0.3), 15).state.w)


@pytest.mark.parametrize("memory", [0, 12])
@pytest.mark.parametrize("metric", ["cbrt", "sqrt t"])
def test_a_staged_run_follows_the_recurrences(metric, memory):
    """Algorithm 1 with restarts and the last stage's averaging, as one loop over floats on the problem's gradients."""
    problem, lam, start_lr, c0 = lasso(), 0.1, 0.05, 0.3
    milestones, gamma, steps = (15, 40), 0.2, 80
    method = (RAMDA if metric == "cbrt" else RMDA)(L1(lam))
    schedule = Schedule(start_lr, c0, 1e-4, milestones, gamma, memory, grow_averaging=True)
    result = run(problem, method, schedule, steps, gradients=FullGradient())
    n = range(problem.initial.size)
    w, anchor, v, u = ([0.0 for _ in n] for _ in range(4))
    alpha, eta, eps, t, taken = 0.0, start_lr, 1e-4, 0, 0
    for k in range(1, steps + 1):
        if k - 1 in milestones:
            eta, eps, anchor, taken = gamma * eta, gamma * eps, list(w), 0
            t, new = memory, sum(eta * math.sqrt(j) for j in range(1, memory + 1))
            v, u, alpha = [new / alpha * x for x in v], [new / alpha * x for x in u], new
        g = problem.gradient(np.array(w)).tolist()
        t, taken = t + 1, taken + 1
        s = eta * math.sqrt(t)
        alpha += s
        v, u = [v[i] + s * g[i] for i in n], [u[i] + s * g[i] ** 2 for i in n]
        p = [math.cbrt(u[i]) + eps if metric == "cbrt" else math.sqrt(t) for i in n]
        w_hat = minimiser([p[i] * anchor[i] - v[i] for i in n], p, alpha, lam)
        c = min(c0 * math.sqrt(taken), 1.0) if k > milestones[-1] else c0
        w = [(1 - c) * w[i] + c * w_hat[i] for i in n]
        assert ([x != 0 for x in w_hat] == result.record.structures_hat[k - 1].mask).all()
    np.testing.assert_allclose(result.state.w, w, rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(result.state.w, result.state.w_hat)
    assert result.state.step == t


def test_memory_reaches_the_run():
    problem = lasso()
    forgets, keeps = (
        run(problem, MADGRAD(), Schedule(0.1, milestones=(20,), memory=memory), 25).state for memory in (0, 100)
    )
    assert forgets.step == 5 and keeps.step == 105
    assert not np.array_equal(forgets.w, keeps.w)


def test_memory_that_grows_from_restart_to_restart():
    """5, 15 and 45 steps; the optimizer's schedule does the same."""
    problem = lasso()
    schedule = Schedule(0.1, milestones=(4, 8, 12), gamma=0.5, memory=5, memory_growth=3.0)
    assert [schedule.memory_at(t) for t in (5, 9, 13, 14)] == [5, 15, 45, 45]
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = optim.RAMDA([parameter])
    stages = optim.StageSchedule(optimizer, [4, 8, 12], 0.5, 5, memory_growth=3.0)
    for t in range(1, 15):
        state = run(problem, RAMDA(L1(0.1)), schedule, t).state
        parameter.grad = torch.ones(3)
        optimizer.step()
        assert state.step == int(optimizer.state[parameter]["step"])
        assert state.step == (t if t <= 4 else t - 4 + 5 if t <= 8 else t - 8 + 15 if t <= 12 else t - 12 + 45)
        stages.step()
    for bad in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="memory_growth must be"):
            Schedule(0.1, memory_growth=bad)
        with pytest.raises(ValueError, match="memory_growth must be"):
            optim.StageSchedule(optimizer, [4], memory_growth=bad)


def test_a_restart_of_rda_keeps_the_average_of_its_own_weights():
    """alpha after m steps is m eta, not eta times a sum of roots."""
    method, rng = RDA(L1(0.1)), np.random.default_rng(0)
    state = method.init(np.zeros(4))
    for _ in range(7):
        state, _ = method.step(state, rng.normal(size=4), Settings(0.2))
    again = method.restart(state, Settings(0.05), 30)
    assert (again.step, again.weight_sum) == (30, pytest.approx(1.5))
    np.testing.assert_allclose(again.gradient_estimate, state.gradient_estimate, rtol=1e-13)


def test_the_regularizer_of_a_stage_is_weighted_by_its_own_alpha():
    """After a restart alpha begins anew: the subproblem's weight is that of the stage's steps only."""
    problem = lasso()
    method = RAMDA(GroupLasso(0.1, dims=(0,)))
    state = run(problem, method, Schedule(0.1, milestones=(10,)), 13).state
    assert method.subproblem(state).weight_sum == pytest.approx(0.01 * (1 + math.sqrt(2) + math.sqrt(3)), rel=1e-13)
