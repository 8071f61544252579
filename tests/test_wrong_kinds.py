"""Data of the wrong kind is refused where it enters: complex numbers, masks, a class where an object is wanted."""

import numpy as np
import pytest

from ramda_theory.problems import least_squares, multinomial_logistic
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
