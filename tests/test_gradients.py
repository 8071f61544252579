"""Where gradients come from: batches that partition the epoch, seeded noise, and nothing remembered between steps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramda_theory.methods import FullGradient, NoisyGradient, SampledGradient
from ramda_theory.problems import PROBLEMS, lasso, least_squares
from ramda_theory.regularizers import L1


def sum_of(samples: int):
    """f_i(w) = (w_0 - i)^2 / 2: the gradient at 0 tells which samples were looked at."""
    return least_squares(np.ones((samples, 1)), np.arange(samples, dtype=float), L1(0.0))


@given(samples=st.integers(1, 60), size=st.integers(1, 60), seed=st.integers(0, 2**31))
def test_batches_partition_every_epoch(samples, size, seed):
    problem, gradients = sum_of(samples), SampledGradient(size, seed)
    if size > samples:
        with pytest.raises(
            ValueError, match=f"batch_size must be at most the number of samples, {samples}, got {size}"
        ):
            gradients.steps_per_epoch(problem)
        return
    per_epoch = gradients.steps_per_epoch(problem)
    assert per_epoch == samples // size
    for epoch in range(3):
        batches = [gradients.batch(problem, epoch * per_epoch + index + 1) for index in range(per_epoch)]
        seen = np.concatenate(batches)
        assert all(len(batch) == size for batch in batches)
        assert len(set(seen.tolist())) == len(seen) == per_epoch * size  # no sample twice; the rest is dropped
        assert set(seen.tolist()) <= set(range(samples))


def test_epochs_are_shuffled_afresh_and_every_sample_has_its_turn():
    problem, gradients = sum_of(50), SampledGradient(8, seed=1)
    epochs = [
        np.concatenate([gradients.batch(problem, 6 * epoch + index) for index in range(1, 7)]) for epoch in range(40)
    ]
    assert not np.array_equal(epochs[0], epochs[1])
    dropped = [set(range(50)) - set(epoch.tolist()) for epoch in epochs]
    assert all(len(left) == 2 for left in dropped)
    assert len(set.union(*dropped)) > 25  # not always the same two


@given(order=st.permutations(range(1, 25)), seed=st.integers(0, 2**31))
def test_a_batch_depends_on_the_seed_and_the_step_alone(order, seed):
    problem, once = sum_of(40), SampledGradient(6, seed)
    asked = {t: once.batch(problem, t).tolist() for t in order}
    assert asked == {t: SampledGradient(6, seed).batch(problem, t).tolist() for t in range(1, 25)}
    once.batch(sum_of(30), 3)  # another problem in between changes nothing
    assert once.batch(problem, 3).tolist() == asked[3]
    assert SampledGradient(6, seed + 1).batch(problem, 1).tolist() != asked[1]


def test_the_mean_over_the_batch_is_taken():
    problem, gradients = sum_of(10), SampledGradient(4, seed=5)
    w = np.array([2.0])
    for t in range(1, 7):
        assert gradients(problem, w, t)[0] == pytest.approx(2.0 - np.mean(gradients.batch(problem, t)), rel=1e-14)


@pytest.mark.parametrize("name", PROBLEMS)
def test_batches_of_a_full_epoch_average_to_the_full_gradient(name):
    problem = PROBLEMS[name]()
    size = next(size for size in range(2, problem.samples + 1) if problem.samples % size == 0)
    gradients = SampledGradient(size, seed=2)
    w = problem.initial + 0.1 * np.random.default_rng(0).standard_normal(problem.initial.shape)
    steps = gradients.steps_per_epoch(problem)
    mean = sum(gradients(problem, w, t) for t in range(1, steps + 1)) / steps
    np.testing.assert_allclose(mean, FullGradient()(problem, w, 1), rtol=1e-10, atol=1e-12)
    assert FullGradient().steps_per_epoch(problem) == 1


def test_noise_is_seeded_by_step_and_has_the_given_deviation():
    problem = lasso(features=150)
    w, exact = problem.initial, problem.gradient(problem.initial)
    draw = [NoisyGradient(0.5, seed=1)(problem, w, t) - exact for t in range(1, 101)]
    np.testing.assert_array_equal(draw[6], NoisyGradient(0.5, seed=1)(problem, w, 7) - exact)
    assert not np.array_equal(draw[0], draw[1])
    assert not np.array_equal(draw[0], NoisyGradient(0.5, seed=2)(problem, w, 1) - exact)
    values = np.concatenate(draw)
    # standard errors: deviation / sqrt(n) of the mean, deviation / sqrt(2 n) of the deviation, n = 15000
    assert abs(values.mean()) < 4 * 0.5 / np.sqrt(values.size)
    assert abs(values.std() - 0.5) < 4 * 0.5 / np.sqrt(2 * values.size)
    correlation = np.corrcoef(draw[0], draw[1])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(150)
    np.testing.assert_array_equal(NoisyGradient(0.0)(problem, w, 3), exact)


@pytest.mark.parametrize("gradients", [FullGradient(), SampledGradient(10), NoisyGradient(0.1)])
def test_oracles_leave_the_point_alone(gradients):
    problem = lasso()
    w = np.ones(50)
    w.flags.writeable = False
    first, second = gradients(problem, w, 4), gradients(problem, w, 4)
    np.testing.assert_array_equal(first, second)
    assert not np.shares_memory(first, w)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: SampledGradient(0), ValueError, "batch_size must be at least 1, got 0"),
        (lambda: SampledGradient(2.5), TypeError, "batch_size must be an integer, got 2.5"),
        (lambda: SampledGradient((3,)), TypeError, "batch_size must be an integer"),
        (lambda: SampledGradient(3, seed=-1), ValueError, "seed must be at least 0, got -1"),
        (lambda: NoisyGradient(-0.1), ValueError, "sigma must be finite and >= 0, got -0.1"),
        (lambda: NoisyGradient(float("nan")), ValueError, "sigma must be finite"),
        (lambda: NoisyGradient(0.1, seed=0.5), TypeError, "seed must be an integer, got 0.5"),
    ],
)
def test_bad_arguments_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_problem_without_samples_has_no_batches():
    problem = lasso()
    problem.samples = None
    with pytest.raises(ValueError, match="number of samples, None"):
        SampledGradient(3)(problem, problem.initial, 1)


def test_oracles_say_what_they_are():
    """Their text tells runs apart, and nothing that was remembered shows in it."""
    gradients = SampledGradient(3, seed=4)
    gradients.batch(sum_of(9), 1)
    assert repr(gradients) == "SampledGradient(batch_size=3, seed=4)"
    assert gradients == SampledGradient(3, seed=4) != SampledGradient(3, seed=5)
    assert dataclasses.replace(gradients, seed=5).batch(sum_of(9), 1).tolist() != gradients.batch(sum_of(9), 1).tolist()
