"""Points that meet (7) without being solutions, at a chosen distance."""

from __future__ import annotations

import numpy as np
import pytest
from backends import DOUBLE, to_numpy
from examples import EXAMPLES, MATRIX, example_problem

from ramda_theory.regularizers import NuclearNorm
from ramda_theory.subproblem import largest_perturbation, perturbed, solve


@pytest.mark.parametrize("along", ["manifold", "ambient"])
@pytest.mark.parametrize("backend", DOUBLE, ids=str)
@pytest.mark.parametrize("regularizer", EXAMPLES, ids=str)
def test_a_move_of_the_asked_length(regularizer, backend, along):
    """The point moves by ``distance`` and stays on its manifold, or leaves it if that is not asked for."""
    problem = example_problem(regularizer, backend)
    tolerance = 1e-3 * problem.magnitude
    best = solve(problem, tolerance=1e-11 * problem.magnitude)
    moved = perturbed(problem, best.point, 1e-3, tolerance=tolerance, along=along)
    assert np.linalg.norm(to_numpy(moved.point) - to_numpy(best.point)) == pytest.approx(1e-3, rel=1e-9)
    assert moved.residual == float(problem.residual(moved.point)) > 1e-5 * np.min(to_numpy(problem.metric))
    assert (moved.structure == best.structure) == (along == "manifold")
    again = perturbed(problem, best.point, 1e-3, tolerance=tolerance, along=along)
    other = perturbed(problem, best.point, 1e-3, tolerance=tolerance, along=along, seed=1)
    assert np.array_equal(to_numpy(again.point), to_numpy(moved.point))
    assert not np.array_equal(to_numpy(other.point), to_numpy(moved.point))
    assert perturbed(problem, best.point, 0.0, tolerance=tolerance).status == "solved"


@pytest.mark.parametrize("fraction", [1e-6, 1e-3, 0.1])
@pytest.mark.parametrize("backend", DOUBLE, ids=str)
@pytest.mark.parametrize("regularizer", EXAMPLES, ids=str)
def test_the_longest_move_that_meets_the_condition(regularizer, backend, fraction):
    """It meets (7) on the manifold of the solution; twice its length does not."""
    problem = example_problem(regularizer, backend)
    best = solve(problem, tolerance=1e-11 * problem.magnitude)
    tolerance = fraction * problem.magnitude
    longest = largest_perturbation(problem, best.point, tolerance=tolerance)
    assert longest.status == "solved" and longest.residual <= tolerance
    if fraction <= 1e-3:
        assert longest.residual >= 0.5 * tolerance
        assert longest.structure.count == best.structure.count
    distance = np.linalg.norm(to_numpy(longest.point) - to_numpy(best.point))
    assert perturbed(problem, best.point, 0.99 * distance, tolerance=tolerance).status == "solved"
    assert perturbed(problem, best.point, 2 * distance, tolerance=tolerance).status == "max_iter"


@pytest.mark.parametrize("regularizer", MATRIX, ids=str)
def test_the_objective_condition_bounds_the_move_too(regularizer):
    """With the solution as start nothing is below it: the longest move is (nearly) none; a worse start allows one."""
    problem = example_problem(regularizer, DOUBLE[0])
    best = solve(problem, tolerance=1e-13 * problem.magnitude, max_iter=50_000)
    tolerance = 0.1 * problem.magnitude
    free = largest_perturbation(problem, best.point, tolerance=tolerance)
    held = largest_perturbation(problem, best.point, tolerance=tolerance, start=best.point)
    assert np.linalg.norm(held.point - best.point) < 1e-4 * np.linalg.norm(free.point - best.point)
    middle = best.point + 0.3 * (free.point - best.point)
    between = largest_perturbation(problem, best.point, tolerance=tolerance, start=middle)
    assert between.status == "solved" and problem.increase(between.point, middle) <= 0
    assert np.linalg.norm(between.point - middle) <= 0.02 * np.linalg.norm(middle - best.point)


def test_a_solution_at_zero_has_no_manifold_to_move_along():
    """On the manifold {0} nothing moves; off it a move is one into the interior of the subdifferential, and fails."""
    problem = example_problem(NuclearNorm(0.7), DOUBLE[0])
    heavy = type(problem)(problem.anchor, problem.grad_sum, problem.metric, 100.0, problem.regularizer)
    best = solve(heavy)
    assert not np.any(best.point)
    assert not np.any(perturbed(heavy, best.point, 1.0, tolerance=1e-6).point)
    assert perturbed(heavy, best.point, 1e-6, tolerance=1e-6, along="ambient").status == "max_iter"


def test_bad_arguments():
    problem = example_problem(MATRIX[0], DOUBLE[0])
    best = solve(problem).point
    with pytest.raises(ValueError, match="along must be 'manifold' or 'ambient', got 'normal'"):
        perturbed(problem, best, 0.1, tolerance=1.0, along="normal")
    with pytest.raises(ValueError, match="distance must be finite and >= 0, got -1"):
        perturbed(problem, best, -1, tolerance=1.0)
