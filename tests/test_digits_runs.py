"""What is promised of RAMDA on the digits: when it has the pixels, how close it comes, what recording costs."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import pytest

from ramda_theory.diagnostics import StructureTrace, identification
from ramda_theory.methods import RAMDA, RMDA, ProxSGD, SampledGradient, Schedule
from ramda_theory.problems import digits
from ramda_theory.regularizers import GroupLasso
from ramda_theory.run import run

PER_EPOCH = 28  # batches of 64
STAGES = tuple(PER_EPOCH * epoch for epoch in (60, 120, 180, 240))


@pytest.fixture(scope="module")
def problem():
    return digits()


def run_on(problem, schedule, steps, seed):
    method = RAMDA(problem.regularizer)
    return run(problem, method, schedule, steps, gradients=SampledGradient(64, seed), measure_every=steps)


def test_ramda_finds_the_pixels_and_keeps_them(problem):
    """lr 1e-2, averaging 1: T0 <= 2500; and the numbers of a known optimum of 28 pixels."""
    reference = problem.solution()
    assert reference.certified and reference.structure.count == 28
    assert 1 - reference.margin == pytest.approx(0.942, abs=5e-4)
    result = run_on(problem, Schedule(1e-2), 2800, seed=0)
    found = identification(result.record.structures_hat, reference.structure)
    assert found.time is not None and 1000 < found.time <= 2500
    assert found.final_error == 0 and found.held_for >= 300
    assert identification(result.record.structures_w, reference.structure) == found  # averaging 1: w is w_hat


def test_an_averaged_w_does_not_reach_the_manifold(problem):
    """Theorem 3 is about w_hat: with averaging 0.1 it has the pixels when w is still far from sparse."""
    reference = problem.solution()
    result = run_on(problem, Schedule(1e-2, 0.1), 2800, seed=0)
    assert identification(result.record.structures_hat, reference.structure).final_error == 0
    assert identification(result.record.structures_w, reference.structure).final_error > 10


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ramda_over_300_epochs(problem, seed):
    result = run_on(problem, Schedule(1e-2), 8400, seed)
    found = identification(result.record.structures_hat, problem.solution().structure)
    assert found.time <= 2500 and found.final_error == 0
    assert result.record.metrics["objective"][-1] - problem.solution().objective <= 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("memory", [0, 200])
def test_staged_ramda_over_300_epochs(problem, seed, memory):
    """lr 1e-1, averaging 0.1 growing to 1 in the last stage: no wrong pixel in the last tenth, gap <= 1e-5."""
    schedule = Schedule(1e-1, 0.1, milestones=STAGES, grow_averaging=True, memory=memory)
    result = run_on(problem, schedule, 8400, seed)
    reference = problem.solution()
    for trace in (result.record.structures_hat, result.record.structures_w):
        assert (trace.distances(reference.structure)[-840:] == 0).all()
    assert 0 <= result.record.metrics["objective"][-1] - reference.objective <= 1e-5


def recording_share(problem, method, schedule, monkeypatch, steps: int = 400) -> float:
    """Time a run's steps spend on reading and recording structures over the rest of their time, the median step."""
    marks: list[tuple[float, float]] = []

    def timed(function):
        def wrapper(*args):
            start = perf_counter()
            value = function(*args)
            marks.append((start, perf_counter()))
            return value

        return wrapper

    with monkeypatch.context() as patch:
        patch.setattr(GroupLasso, "structure", timed(GroupLasso.structure))
        patch.setattr(StructureTrace, "append", timed(StructureTrace.append))
        run(problem, method, schedule, steps, gradients=SampledGradient(64))
    calls = np.reshape(marks, (steps, -1, 2))  # each step makes the same three or four calls
    recording = (calls[:, :, 1] - calls[:, :, 0]).sum(axis=1)[:-1]
    return float(np.median(recording / (np.diff(calls[:, 0, 0]) - recording)))


@pytest.mark.parametrize(
    ("kind", "lr", "averaging"), [(RAMDA, 1e-2, 1.0), (RAMDA, 1e-2, 0.1), (RMDA, 1.0, 1.0), (ProxSGD, 1.0, 0.1)]
)
def test_recording_structures_costs_under_a_tenth_of_a_step(problem, kind, lr, averaging, monkeypatch):
    """The best of several tries: other work on the machine can only disturb."""
    method, schedule = kind(problem.regularizer), Schedule(lr, averaging)
    shares = []
    while len(shares) < 12 and min(shares, default=1.0) >= 0.1:
        shares.append(recording_share(problem, method, schedule, monkeypatch))
    print(f"{kind.__name__}, averaging {averaging}: {min(shares):.1%}")
    assert min(shares) < 0.1, shares
