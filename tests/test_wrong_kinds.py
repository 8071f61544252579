"""Data of the wrong kind is refused where it enters: complex numbers, masks, a class where an object is wanted."""

import numpy as np
import pytest

from ramda_theory import run
from ramda_theory.diagnostics import StructureTrace, identification
from ramda_theory.methods import RAMDA, SampledGradient, Schedule
from ramda_theory.problems import binary_logistic, lasso, least_squares, multinomial_logistic
from ramda_theory.regularizers import L1
from ramda_theory.subproblem import Exact, Subproblem, solve


def test_complex_data_are_refused_and_not_cut_to_their_real_part():
    features, targets = np.ones((4, 2)) + 1j, np.array([0, 1, 0, 1])
    with pytest.raises(TypeError, match="real numbers"):
        least_squares(features, np.ones(4), L1(0.1))
    with pytest.raises(TypeError, match="real numbers"):
        multinomial_logistic(features, targets, L1(0.1))


def test_a_mask_is_refused_and_not_ignored():
    hidden = np.ma.array([1.0, 2.0, 3.0], mask=[0, 1, 0])
    with pytest.raises(TypeError, match="grad_sum must be a plain array"):
        Subproblem(np.zeros(3), hidden, np.ones(3), 1.0, L1(0.1))


def test_a_solver_class_is_not_a_solver():
    problem = Subproblem(np.zeros(3), np.ones(3), np.ones(3), 1.0, L1(0.1))
    with pytest.raises(ValueError, match="method must be one of"):
        solve(problem, method=Exact)
    assert solve(problem, method=Exact()).status == "solved"


@pytest.mark.parametrize("start", [0.0, 0, np.float64(1.0), np.array(0.0), np.zeros(2), np.zeros((3, 1))])
def test_a_start_of_the_wrong_shape(start):
    problem = Subproblem(np.zeros(3), np.ones(3), np.ones(3), 1.0, L1(0.1))
    with pytest.raises(ValueError, match=r"start must be an array of shape \(3,\)|shapes must agree, .*start"):
        solve(problem, start=start)


def test_numbers_are_not_arrays():
    with pytest.raises(TypeError, match="all of one library, got anchor: ndarray, grad_sum: float, metric: ndarray"):
        Subproblem(np.zeros(3), 1.0, np.ones(3), 1.0, L1(0.1))


PROBLEM = lasso(samples=20, features=4, nonzeros=2)
PARTS = {"problem": PROBLEM, "method": RAMDA(PROBLEM.regularizer), "schedule": Schedule(lr=0.1)}


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        *(("method", wrong) for wrong in (RAMDA, "RAMDA", None, L1(0.1), PROBLEM)),
        *(("problem", wrong) for wrong in (lasso, "lasso", None)),
        *(("schedule", wrong) for wrong in (Schedule, 0.1, None)),
        *(("gradients", wrong) for wrong in (SampledGradient, 64, "full")),
    ],
)
def test_a_run_says_what_it_wants(part, wrong):
    with pytest.raises(TypeError, match=rf"{part} must be an? .*, got "):
        run(**(PARTS | {part: wrong}), steps=1)
    assert run(**PARTS, steps=1).state.step == 1


def test_more_steps_than_can_be_recorded():
    with pytest.raises(ValueError, match=r"steps must be at most 1000000000 .*, got 10000000000"):
        run(**PARTS, steps=10**10)


@pytest.mark.parametrize("trace", [[1, 2], None, 3, L1(0.1).structure(np.ones(3))])
def test_identification_wants_a_trace(trace):
    with pytest.raises(TypeError, match=r"trace must be a StructureTrace such as .*, got "):
        identification(trace, 3)


@pytest.mark.parametrize("reference", [3, "a", np.ones(3), StructureTrace(), L1])
def test_identification_wants_a_structure(reference):
    trace = StructureTrace()
    trace.append(L1(0.1).structure(np.ones(3)))
    with pytest.raises(TypeError, match=r"reference must be a structure such as .*, got "):
        identification(trace, reference)
    assert identification(trace, trace[0]).time == 1


DATA, LABELS = np.random.default_rng(0).normal(size=(12, 3)), np.arange(12) % 2
MAKERS = {
    "least squares": lambda scale: least_squares(scale * DATA, DATA[:, 0], L1(0.1)),
    "multinomial": lambda scale: multinomial_logistic(scale * DATA, LABELS, L1(0.1)),
    "binary": lambda scale: binary_logistic(scale * DATA, LABELS, L1(0.1)),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_data_out_of_all_proportion(make):
    """Their squares overflow or underflow, and with them the Lipschitz constant."""
    for scale in (1e200, 1e300):
        with pytest.raises(ValueError, match=r"must be scaled down: its largest entry, .*, overflows when squared"):
            make(scale)
    for scale in (1e-160, 1e-200, 1e-310):
        with pytest.raises(ValueError, match=r"must be scaled up: its spectral norm, .*, underflows when squared"):
            make(scale)
    for scale in (1e-150, 1e150):
        assert 0 < make(scale).lipschitz < np.inf


def test_observations_out_of_all_proportion():
    with pytest.raises(ValueError, match=r"y must be scaled down: its largest entry, .*e\+200, overflows"):
        least_squares(DATA, 1e200 * DATA[:, 0], L1(0.1))
    assert least_squares(DATA, 1e-200 * DATA[:, 0], L1(0.1)).solution().stationarity == 0.0


@pytest.mark.parametrize("labels", [4 * LABELS, 1 + LABELS, 10**12 * LABELS])
def test_classes_without_a_sample(labels):
    with pytest.raises(ValueError, match=r"targets must hold every class from 0 to \d+, got 2 classes only"):
        multinomial_logistic(DATA, labels, L1(0.1))
    assert multinomial_logistic(DATA, np.unique(labels, return_inverse=True)[1], L1(0.1)).initial.shape == (3, 2)
