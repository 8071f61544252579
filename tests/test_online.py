"""The statement on the structure during a run, and the second phase that it begins."""

from __future__ import annotations

import numpy as np
import pytest

from ramda_theory import SecondPhase, run
from ramda_theory.diagnostics import OnlineCertificate, identification
from ramda_theory.methods import NSGD, RAMDA, NoisyGradient, SampledGradient, Schedule
from ramda_theory.problems import group_lasso, lasso, low_rank, mcp
from ramda_theory.second_phase import Frozen, near

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
    assert online.passes == 600 // BATCHES.steps_per_epoch(problem) + 1  # and the confirmation


def test_nothing_is_settled_before_three_epochs():
    problem = lasso(margin=0.3, seed=1)
    per_epoch = BATCHES.steps_per_epoch(problem)
    online = OnlineCertificate(problem, per_epoch)
    run(problem, RAMDA(problem.regularizer), Schedule(0.1), 3 * per_epoch - 1, gradients=BATCHES, online=online)
    assert set(online.state) == {"undecided"} and online.fired_at is None and not np.any(online.statistic())


def test_short_windows_need_more():
    """z of three epochs counts (3/5)^2 of one of five; of two windows the more telling one decides."""
    online = OnlineCertificate(lasso(margin=0.3, seed=1, features=10, nonzeros=2), 1)
    steady, flat = [1.0, 1.1, 0.9, 1.0, 1.0], np.zeros(10)
    history = [(np.full(10, size), flat) for size in steady]
    z = [np.mean(steady[-k:]) / np.std(steady[-k:], ddof=1) * (k / 5) ** 2 for k in (3, 4, 5)]
    for epochs, expected in ((2, 0.0), (3, None), (5, max(z))):
        online._history.clear()
        online._history.extend(history[:epochs])
        if expected is None:
            expected = np.mean(steady[:3]) / np.std(steady[:3], ddof=1) * 0.36
        np.testing.assert_allclose(online.statistic(), expected)


@pytest.mark.parametrize("make", [lasso, group_lasso], ids=["l1", "groups"])
def test_a_proof_is_complete_when_the_run_has_the_structure(make):
    problem = make(margin=0.05, seed=2)
    per_epoch = BATCHES.steps_per_epoch(problem)
    online = OnlineCertificate(problem, per_epoch, proof=True)
    schedule = Schedule(1.0 / problem.lipschitz, milestones=(200, 400), gamma=0.2)
    method = NSGD(problem.regularizer, 20.0 / problem.lipschitz)
    result = run(problem, method, schedule, 600, gradients=BATCHES, online=online)
    right = problem.solution().structure
    found = identification(result.record.structures_hat, right)
    assert online.fired_at is not None and found.time is not None
    first = next(t for t in range(1, 601) if t >= 3 * per_epoch and result.record.structures_hat[t - 1] == right)
    assert online.fired_at <= first
    assert online.passes <= 4 < 600 // per_epoch  # a quadratic: no pass is spent once all is proved
    assert set(online.state) == {"zero", "nonzero"}
    assert np.count_nonzero(online.state == "nonzero") == right.count
    assert problem.regularizer.structure(online.proposal) == right


def test_nothing_is_proved_of_a_degenerate_problem_or_asked_of_a_nonconvex_one():
    problem = lasso(margin=0.0, seed=0)
    online = OnlineCertificate(problem, BATCHES.steps_per_epoch(problem), proof=True)
    run(problem, RAMDA(problem.regularizer), Schedule(0.1), 200, gradients=BATCHES, online=online)
    assert online.fired_at is None and "undecided" in online.state
    with pytest.raises(ValueError, match="proof"):
        OnlineCertificate(mcp(), 5, proof=True)


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


@pytest.mark.parametrize("begins", [1, 4, 10])
def test_frozen_epochs_have_the_full_gradient_wherever_they_begin(begins, monkeypatch):
    problem = group_lasso(margin=0.3, seed=1)
    per_epoch, w = BATCHES.steps_per_epoch(problem), np.zeros_like(problem.initial)
    phase, seen = Frozen(problem, w, BATCHES), []
    monkeypatch.setattr(Frozen, "_move", lambda self, gradient: seen.append(gradient))
    for t in range(begins, 3 * per_epoch + 1):
        phase.step(problem.batch_gradient(w, BATCHES.batch(problem, t)), t)
    assert len(seen) == 3
    for gradient in seen:
        np.testing.assert_allclose(gradient, problem.gradient(w), rtol=0, atol=1e-14)


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


def test_saga_reaches_the_minimiser_and_proofs_begin_phases():
    problem = group_lasso(margin=0.3, seed=1)
    best = problem.solution()
    for phase in (SecondPhase("saga"), SecondPhase("saga", proof=True)):
        per_epoch = BATCHES.steps_per_epoch(problem)
        online = OnlineCertificate(problem, per_epoch, proof=phase.proof)
        schedule = Schedule(1.0 / problem.lipschitz, milestones=(200, 400), gamma=0.2)
        method = NSGD(problem.regularizer, 20.0 / problem.lipschitz)
        result = run(problem, method, schedule, 600, gradients=BATCHES, online=online, second_phase=phase)
        assert abs(problem.objective(result.state.w_hat) - best.objective) <= 1e-12
        assert result.record.structures_hat[-1] == best.structure


@pytest.mark.parametrize("change", ["removed", "added"])
def test_saga_corrects_a_wrong_support(change):
    """Pieces that the start lacks come in, and pieces it has too many go, with the first epoch's proximal step."""
    problem = group_lasso(margin=0.3, seed=1)
    best = problem.solution()
    w = best.point.copy()
    on = np.any(w != 0, axis=1)
    if change == "removed":
        w[np.flatnonzero(on)[:2]] = 0.0
    else:
        w[np.flatnonzero(~on)[:2]] = 0.1
    phase = SecondPhase("saga").begin(problem, w, BATCHES)
    for t in range(1, 400):
        phase.step(BATCHES(problem, phase.w, t), t)
    assert phase.sound and problem.regularizer.structure(phase.w) == best.structure
    assert abs(problem.objective(phase.w) - best.objective) <= 1e-12


def test_sagas_safeguard_sees_pieces_that_must_come_and_pieces_that_turn():
    problem = group_lasso(margin=0.3, seed=1)
    best = problem.solution()
    per_epoch = BATCHES.steps_per_epoch(problem)
    phase = SecondPhase("saga").begin(problem, best.point.copy(), BATCHES)
    for t in range(1, per_epoch + 1):
        phase.step(BATCHES(problem, phase.w, t), t)
    wrong = best.point.copy()
    wrong[np.flatnonzero(np.any(wrong != 0, axis=1))[0]] = 0.0
    phase.w = wrong  # a support that lacks a piece, behind the phase's back
    phase._renew()
    for t in range(per_epoch + 1, 6 * per_epoch + 1):
        phase.step(BATCHES(problem, phase.w, t), t)
    assert phase.sound and phase._repairs >= 1
    assert problem.regularizer.structure(phase.w) == best.structure
    assert near(problem, best.point, best.point) and not near(problem, -best.point, best.point)
    assert not near(problem, np.zeros_like(best.point), best.point)


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


@pytest.mark.parametrize("wrong", ["a piece is missing", "a piece is too many", "nothing"])
def test_averaged_steps_notice_a_wrong_support(wrong):
    problem = lasso(margin=0.3, seed=1)
    best = problem.solution().point
    w, pieces = best.copy(), np.flatnonzero(best)
    if wrong == "a piece is missing":
        w[pieces[np.argmax(np.abs(w[pieces]))]] = 0.0
    if wrong == "a piece is too many":
        w[np.flatnonzero(best == 0)[0]] = 1e-3 * np.abs(best).max()
    phase = SecondPhase("averaged", delay=50).begin(problem, w, BATCHES)
    for t in range(1, 1601):
        phase.step(BATCHES(problem, phase.w, t), t)
    assert phase.sound == (wrong == "nothing")


def test_a_stream_ends_at_the_limit_of_its_noise():
    """The mean of 2000 averaged Newton steps on a quadratic: E gap = tr(H^-1 S) / (2 n), here over 20 seeds."""
    problem = lasso(margin=0.3, seed=1)
    best = problem.solution()
    active = np.flatnonzero(best.point)
    hessian = problem.hessian_matrix(best.point)[np.ix_(active, active)]
    start, n, size, gaps = best.point * 1.05, 2000, 0.05, []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        phase = SecondPhase("averaged", delay=50).begin(problem, start, None)
        for t in range(1, n + 1):
            phase.step(problem.gradient(phase.w) + size * rng.standard_normal(start.shape), t)
        gaps.append(problem.objective(phase.w_hat) - best.objective)
    limit = size**2 * np.trace(np.linalg.inv(hessian) @ np.eye(len(active))) / (2 * n)
    assert 0.6 < np.mean(gaps) / limit < 1.6


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
    for wrong, message in ((problem.initial[1:], "shape"), (problem.initial * np.nan, "finite")):
        with pytest.raises(ValueError, match="w must be finite and have shape"):
            SecondPhase("averaged").begin(problem, wrong, NoisyGradient(0.1))
        online = OnlineCertificate(problem, 1)
        for name in ("query", "gradient", "w_hat"):
            arrays = dict.fromkeys(("query", "gradient", "w_hat"), problem.initial) | {name: wrong}
            with pytest.raises(ValueError, match=f"{name} must .*{message}"):
                online.observe(1, **arrays)
        assert online.passes == 0 and not online.observe(1, *[problem.initial] * 3) and online.passes == 1
    for arguments, error, message in (
        ({"online": "yes"}, TypeError, "online must be of type OnlineCertificate, got 'yes'"),
        ({"second_phase": "saga"}, TypeError, "second_phase must be of type SecondPhase, got 'saga'"),
        ({"online": OnlineCertificate(lasso(seed=1), 5)}, ValueError, "online must watch the problem of the run"),
    ):
        with pytest.raises(error, match=message):
            run(problem, RAMDA(problem.regularizer), Schedule(0.1), 1, gradients=BATCHES, **arguments)


def test_a_confirmed_statement_is_withheld_where_the_samples_contradict_it():
    """A run whose gradients are all off by the same error: the statistic believes them, the confirmation does not."""
    problem = lasso(margin=0.1, seed=1)
    psi, best = problem.regularizer, problem.solution()
    ratios = np.abs(problem.gradient(best.point)) / psi.weight
    piece = int(np.argmax(np.where(best.point == 0, ratios, 0)))
    error = np.zeros_like(best.point)
    error[piece] = 0.3 * psi.weight * np.sign(problem.gradient(best.point)[piece])
    shifted = proximal_point(problem, error)
    assert psi.structure(shifted) != best.structure
    plain, confirmed = OnlineCertificate(problem, 5, confirm=False), OnlineCertificate(problem, 5)
    for step in range(1, 41):
        for online in (plain, confirmed):
            online.observe(step, shifted, problem.gradient(shifted) + error, shifted)
    assert plain.holds and plain.passes == 8
    assert not confirmed.holds and confirmed.fired_at is None and confirmed.state[piece] == "undecided"
    assert np.count_nonzero(confirmed.state == "undecided") <= 2
    for step in range(1, 41):
        confirmed.observe(40 + step, best.point, problem.gradient(best.point), best.point)
    assert confirmed.holds
    before = confirmed.passes
    confirmed.observe(81, best.point, problem.gradient(best.point), best.point)
    assert confirmed.passes == before  # a structure is confirmed once


def proximal_point(problem, error):
    """The minimiser of F + <error, w>, by proximal gradient steps."""
    w, step = problem.initial, 1.0 / problem.lipschitz
    for _ in range(20_000):
        w = problem.regularizer.prox(w - step * (problem.gradient(w) + error), step)
    return w


def test_a_confirmation_compares_signs_and_a_withdrawn_statement_begins_anew():
    problem = lasso(margin=0.3, seed=1)
    best = problem.solution().point
    psi = problem.regularizer
    online = OnlineCertificate(problem, 1)
    agrees = online._agreeing(-best, best != 0)
    assert np.array_equal(agrees, best == 0) and psi.structure(-best) != psi.structure(best)
    assert online._agreeing(best, best != 0).all()
    for step in range(1, 5):
        online.observe(step, best, problem.gradient(best), best)
    assert online.holds
    online.withdraw()
    assert not online.holds and set(online.state) == {"undecided"}
    assert not online.observe(5, best, problem.gradient(best), best)


def test_averaged_steps_that_are_too_long_are_refused_or_given_up():
    problem = lasso(margin=0.3, seed=1)
    with pytest.raises(ValueError, match=r"gain must be below 2 \(1 \+ delay\)\^\(2/3\) = 2,"):
        SecondPhase("averaged", gain=2.0, delay=0)
    rng = np.random.default_rng(0)
    phase = SecondPhase("averaged", gain=1.9, delay=0).begin(problem, problem.solution().point, None)
    for t in range(1, 700):
        phase.step(problem.gradient(phase.w) + 30.0 * rng.standard_normal(phase.w.shape), t)
        if not phase.sound:
            break
    assert not phase.sound
    for seed in range(5):
        phase = SecondPhase("averaged", delay=0).begin(problem, problem.solution().point, None)
        gradients = SampledGradient(20, seed)
        for t in range(1, 200):
            phase.step(gradients(problem, phase.w, t), t)
        assert phase.sound
