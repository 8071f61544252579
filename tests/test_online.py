"""The statement on the structure during a run, and the second phase that it begins."""

from __future__ import annotations

import numpy as np
import pytest

from ramda_theory import SecondPhase, run
from ramda_theory.diagnostics import OnlineCertificate, identification
from ramda_theory.methods import NSGD, RAMDA, NoisyGradient, SampledGradient, Schedule
from ramda_theory.problems import group_lasso, lasso, low_rank

BATCHES = SampledGradient(20, seed=0)


def watched(problem, steps=600, gradients=BATCHES, second_phase=None, measure_every=0, lr=1.0, tau=20.0):
    per_epoch = gradients.steps_per_epoch(problem)
    online = OnlineCertificate(problem, 100 if per_epoch == 1 else per_epoch)
    schedule = Schedule(lr / problem.lipschitz, milestones=(200, 400), gamma=0.2)
    method = NSGD(problem.regularizer, tau / problem.lipschitz)
    result = run(
        problem,
        method,
        schedule,
        steps,
        gradients=gradients,
        measure_every=measure_every,
        online=online,
        second_phase=second_phase,
    )
    return result, online


@pytest.mark.parametrize("make", [lasso, group_lasso], ids=["l1", "groups"])
def test_it_fires_on_the_right_structure(make):
    problem = make(margin=0.3, seed=1)
    result, online = watched(problem)
    right = problem.solution().structure
    assert online.fired_at is not None and online.holds
    assert problem.regularizer.structure(online.proposal) == right == result.record.structures_hat[-1]
    states = np.array(online.state)
    assert set(states) == {"zero", "nonzero"}
    assert np.count_nonzero(states == "nonzero") == right.count
    assert online.passes == 600 // BATCHES.steps_per_epoch(problem)


def test_nothing_is_settled_before_the_window_is_full():
    problem = lasso(margin=0.3, seed=1)
    per_epoch = BATCHES.steps_per_epoch(problem)
    online = OnlineCertificate(problem, per_epoch)
    run(problem, RAMDA(problem.regularizer), Schedule(0.1), 4 * per_epoch, gradients=BATCHES, online=online)
    assert set(online.state) == {"undecided"} and online.fired_at is None and not np.any(online.statistic())


def test_a_piece_that_comes_and_goes_is_undecided():
    """The statistic of pieces whose size is zero in some epochs of the window only is 0."""
    problem = lasso(margin=0.3, seed=1)
    online = OnlineCertificate(problem, 1, window=2)
    online._history.extend([(np.array([0.0, 1.0]), np.array([0.5, 1.0])), (np.array([1.0, 1.0]), np.array([1.0, 1.0]))])
    online.state = np.array(["undecided"] * 2)
    assert online.statistic()[0] == 0.0 and online.statistic()[1] > 4


def test_a_margin_of_zero_does_not_stay_settled():
    problem = lasso(margin=0.0, seed=0)
    _, online = watched(problem, 1500, NoisyGradient(0.05, 0))
    assert not online.holds


@pytest.mark.parametrize("make", [lasso, group_lasso], ids=["l1", "groups"])
def test_frozen_epochs_reach_the_minimiser(make):
    problem = make(margin=0.3, seed=1)
    plain, online = watched(problem)
    assert online.fired_at is not None
    result, _ = watched(problem, second_phase=SecondPhase())
    best = problem.solution()
    assert identification(result.record.structures_hat, best.structure).final_error == 0
    gap = problem.objective(result.state.w_hat) - best.objective
    assert abs(gap) <= 1e-12 < problem.objective(plain.state.w_hat) - best.objective


def test_averaged_newton_steps_beat_what_began_them():
    problem = lasso(margin=0.3, seed=1)
    noisy = NoisyGradient(0.05, 3)
    best = problem.solution().objective
    gaps = []
    for phase in (None, SecondPhase("averaged")):
        result, online = watched(problem, 2500, noisy, phase)
        assert online.fired_at is not None
        gaps.append(problem.objective(result.state.w_hat) - best)
    assert 0 <= gaps[1] < gaps[0]


def test_a_wrong_start_is_given_up_or_repaired():
    """Frozen epochs from a wrong support end on the right one."""
    problem = lasso(margin=0.3, seed=1)
    w = problem.solution().point.copy()
    w[np.flatnonzero(w)[:2]] = 0.0
    phase = SecondPhase().begin(problem, w, BATCHES)
    for t in range(1, 60):
        phase.step(BATCHES(problem, phase.w, t), t)
    assert problem.regularizer.structure(phase.w) == problem.solution().structure
    averaged = SecondPhase("averaged").begin(problem, w, BATCHES)
    for t in range(1, 60):
        averaged.step(BATCHES(problem, averaged.w, t), t)
    assert problem.regularizer.structure(averaged.w) == problem.regularizer.structure(w) or not averaged.sound


def test_bad_arguments(tmp_path):
    problem = lasso()
    with pytest.raises(ValueError, match="ratio per piece"):
        OnlineCertificate(low_rank(rows=6, columns=5, samples=60, rank=2), 5)
    for arguments, message in (
        ({"window": 1}, "window"),
        ({"threshold": 0.0}, "threshold"),
        ({"steps_per_epoch": 0}, "s"),
    ):
        with pytest.raises(ValueError, match=message):
            OnlineCertificate(problem, **{"steps_per_epoch": 5, **arguments})
    with pytest.raises(ValueError, match="kind must be"):
        SecondPhase("newton")
    with pytest.raises(TypeError, match="needs a SampledGradient"):
        SecondPhase().begin(problem, problem.initial, NoisyGradient(0.1))
    with pytest.raises(ValueError, match="checkpoint must be left out"):
        run(
            problem,
            RAMDA(problem.regularizer),
            Schedule(0.1),
            1,
            gradients=BATCHES,
            checkpoint=tmp_path / "x.npz",
            second_phase=SecondPhase(),
        )
