"""Every solver against the exact solution, and what a status may be called."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from backends import BACKENDS, DOUBLE, to_numpy
from examples import EXAMPLES, MATRIX, example_problem, reference

from ramda_theory.regularizers import L1, MCP, GroupLasso, GroupMCP, NuclearNorm
from ramda_theory.subproblem import ADMM, Accelerated, Exact, NewtonRaphson, ProximalGradient, Subproblem, solve
from ramda_theory.subproblem.generated import group_lasso_problem, nuclear_norm_problem
from ramda_theory.subproblem.problem import Candidate

FIRST_ORDER = {
    "PG": ProximalGradient(),
    "PG per group": ProximalGradient(step="group"),
    "accelerated": Accelerated(),
    "accelerated per group": Accelerated(step="group"),
    "admm": ADMM(),
    "admm, plain": ADMM(relaxation=1.0, memory=0),
}


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
@pytest.mark.parametrize("name", ["exact", "newton_raphson", *FIRST_ORDER])
@pytest.mark.parametrize("regularizer", EXAMPLES, ids=str)
def test_solvers_agree_with_extended_precision(regularizer, name, backend):
    problem = example_problem(regularizer, backend)
    can_solve = {
        "exact": hasattr(regularizer, "metric_prox"),
        "newton_raphson": isinstance(regularizer, GroupLasso),
        "accelerated": regularizer.convex,
        "accelerated per group": regularizer.convex and regularizer.separable,
        "PG per group": regularizer.separable,
        "admm": regularizer.convex,
        "admm, plain": regularizer.convex,
    }.get(name, True)
    if not can_solve:
        with pytest.raises(ValueError, match=r"solves GroupLasso only|needs a (convex )?regularizer|no exact method"):
            solve(problem, FIRST_ORDER.get(name, name))
        return
    solution = solve(problem, FIRST_ORDER.get(name, name), tolerance=1e-11 * problem.magnitude, max_iter=3000)
    expected = reference(problem)
    assert solution.status == "solved" and solution.residual <= solution.tolerance == 1e-11 * problem.magnitude
    assert np.linalg.norm(to_numpy(solution.point) - expected) <= 1e-9 * np.linalg.norm(expected)
    assert solution.structure == regularizer.structure(backend.array(expected))
    assert 0 < solution.structure.dimension < expected.size
    assert (solution.iterations == 0) == (name == "exact")
    assert solution.residual == float(problem.residual(solution.point))


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
@pytest.mark.parametrize("regularizer", EXAMPLES, ids=str)
def test_the_default_solves_in_any_dtype(regularizer, backend):
    """To the error the default tolerance allows; also from starts near the solution, and from the solution itself."""
    problem = example_problem(regularizer, backend, seed=1)
    expected = reference(problem)
    curvature = np.min(to_numpy(problem.metric)) - problem.weight_sum * regularizer.weak_convexity
    noise = np.random.default_rng(2).standard_normal(expected.shape)
    solution = solve(problem)
    for start in (None, expected * (1 + 0.1 * noise), expected + 0.1 * noise, to_numpy(solution.point), expected):
        again = solve(problem, start=None if start is None else backend.array(start))
        assert again.status == "solved" and again.structure == solution.structure
        assert again.point.dtype == problem.anchor.dtype
        assert np.linalg.norm(to_numpy(again.point) - expected) <= problem.default_tolerance() / curvature


def test_default_methods():
    """Exact where there is an exact method, else ADMM for convex and proximal gradient for nonconvex psi."""
    for regularizer in MATRIX:
        problem = example_problem(regularizer, DOUBLE[0])
        assert (solve(problem).iterations == 0) == (not isinstance(regularizer, NuclearNorm))
    steep = dataclasses.replace(example_problem(GroupMCP(0.7, 3.0), DOUBLE[0]), weight_sum=100.0)
    solution = solve(steep)
    assert solution.iterations == 0 and solution.status == "solved"
    with pytest.raises(ValueError, match="accelerated needs a convex regularizer, got GroupMCP"):
        solve(steep, "accelerated")


@pytest.mark.parametrize("regularizer", [MCP(0.7, 3.0), GroupMCP(0.7, 3.0), MATRIX[3]], ids=str)
@pytest.mark.parametrize("solver", [ProximalGradient(), ProximalGradient(step="group")], ids=str)
def test_proximal_gradient_descends_where_psi_is_not_convex(regularizer, solver):
    """With half the step, Q falls at every iteration and the limit is stationary, in metrics below weak convexity."""
    problem = dataclasses.replace(example_problem(regularizer, DOUBLE[0]), weight_sum=30.0)
    start = 3 * np.random.default_rng(3).standard_normal(problem.anchor.shape)
    values = [float(problem.objective(start))]
    for iterations in range(1, 12):
        point = solve(problem, solver, start=start, tolerance=0.0, max_iter=iterations).point
        values.append(float(problem.objective(point)))
    assert np.all(np.diff(values) <= 1e-12 * np.abs(values[:-1]))
    assert solve(problem, solver, start=start, tolerance=1e-10 * problem.magnitude).status == "solved"


# -- statuses ----------------------------------------------------------------------------------------------------------


def tampered(problem, change, start=None, tolerance=1e-6):
    """What `solve` says of a solver that returns the exact solution changed."""
    exact = solve(problem).point

    def solver(problem, start, tolerance, max_iter):
        return Candidate(change(exact), 7)

    return solve(problem, solver, start=start, tolerance=tolerance * problem.magnitude)


@pytest.mark.parametrize("regularizer", EXAMPLES, ids=str)
def test_nobody_is_taken_at_their_word(regularizer):
    """The residual of whatever comes back is computed afresh: a wrong or NaN point is never called solved."""
    problem = example_problem(regularizer, DOUBLE[0])
    assert tampered(problem, lambda x: x).status == "solved"
    wrong = tampered(problem, lambda x: x + 0.01)
    assert wrong.status == "max_iter" and wrong.residual > 1e-6 * problem.magnitude and wrong.iterations == 7
    assert tampered(problem, lambda x: np.full_like(x, np.nan)).status == "max_iter"
    assert tampered(problem, lambda x: 0 * x).status == "max_iter"


@pytest.mark.parametrize("regularizer", EXAMPLES, ids=str)
def test_a_point_above_the_start_is_no_descent(regularizer):
    """At a loose tolerance a point that is worse than the start has a small residual, and is still not solved."""
    problem = example_problem(regularizer, DOUBLE[0])
    best = solve(problem, tolerance=1e-12 * problem.magnitude).point
    worse = best * (1 + 1e-3)
    assert tampered(problem, lambda x: worse, tolerance=0.1).status == "solved"
    assert tampered(problem, lambda x: worse, start=best, tolerance=0.1).status == "no_descent"
    assert tampered(problem, lambda x: best, start=worse, tolerance=0.1).status == "solved"
    assert tampered(problem, lambda x: best, start=best, tolerance=0.1).status == "solved"


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_too_few_iterations_are_max_iter(name):
    problem = group_lasso_problem("benign", 16, 16)
    few = solve(problem, FIRST_ORDER[name], tolerance=1e-10 * problem.magnitude, max_iter=3)
    assert few.status == "max_iter" and few.iterations == 3 and few.residual > 1e-10 * problem.magnitude


def test_the_authors_rule_stops_long_before_the_solution():
    """Metric 1e-6 .. 1e3, warm start: the scaled objective hardly moves and the rule stops; the status says so."""
    problem = group_lasso_problem("spread")
    tolerance = 1e-6 * problem.magnitude
    best = solve(problem, tolerance=tolerance)
    assert best.status == "solved"
    rule = ProximalGradient(stopping="relative_decrease")
    start = best.point * (problem.metric > 1e-2)  # right where the metric is large
    warm = solve(problem, rule, start=start, tolerance=tolerance, max_iter=100)
    assert warm.status == "max_iter" and warm.residual > 1e3 * tolerance
    assert np.linalg.norm(warm.point - best.point) > 0.5 * np.linalg.norm(best.point)
    benign = group_lasso_problem("benign")
    strict = ProximalGradient(stopping="relative_decrease", rtol=1e-14)
    assert solve(benign, strict, tolerance=1e-6 * benign.magnitude).status == "solved"


def test_the_authors_rule_makes_two_iterations_at_least():
    problem = group_lasso_problem("benign")
    hasty = ProximalGradient(stopping="relative_decrease", rtol=1e3)
    assert solve(problem, hasty, start=problem.anchor).iterations == 2
    assert solve(problem, hasty, max_iter=1).iterations == 1


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_solvers_stop_when_the_tolerance_is_met(name):
    """Not before, and without going on for long: the iterations grow with the logarithm of 1/tolerance."""
    problem = group_lasso_problem("benign")
    counts = []
    for power in (2, 4, 6, 8):
        solution = solve(problem, FIRST_ORDER[name], tolerance=10.0**-power * problem.magnitude)
        assert solution.status == "solved" and solution.residual > 1e-4 * 10.0**-power * problem.magnitude
        counts.append(solution.iterations)
    assert counts == sorted(counts) and max(np.diff(counts)) <= 4 * max(1, min(np.diff(counts))) + 4


# -- rates -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "problem", [group_lasso_problem("benign"), nuclear_norm_problem(12, 10)], ids=["group", "nuclear"]
)
def test_linear_rate_of_proximal_gradient(problem):
    """Theorem 1: ||Z_j - x*|| falls by 1 - min P / max P at least, at every iteration (theta = 1/max P)."""
    rate = 1 - np.min(problem.metric) / np.max(problem.metric)
    best = reference(problem)
    start = best + np.random.default_rng(0).standard_normal(best.shape)
    errors = [np.linalg.norm(start - best)]
    for iterations in range(1, 15):
        point = solve(problem, "proximal_gradient", start=start, tolerance=0.0, max_iter=iterations).point
        errors.append(np.linalg.norm(point - best))
    assert np.all(np.array(errors[1:]) <= rate * np.array(errors[:-1]) * (1 + 1e-9))
    assert errors[-1] >= 1e-12 * errors[0]  # it is a rate, not a direct solution


def test_a_step_per_group_and_momentum_pay():
    """Groups of constant metric each are solved in a step of their own; momentum takes the root of the iterations."""
    rng = np.random.default_rng(0)
    metric = np.tile(10.0 ** rng.uniform(-4, 3, 20), (8, 1))
    b = rng.standard_normal((8, 20)) * np.sqrt(metric)
    problem = Subproblem(np.zeros_like(b), -b, metric, 1.0, GroupLasso(0.2, size_scaled=False))
    tolerance = 1e-8 * problem.magnitude
    assert solve(problem, ProximalGradient(step="group"), tolerance=tolerance).iterations <= 2
    assert solve(problem, "proximal_gradient", tolerance=tolerance, max_iter=1000).status == "max_iter"
    wide = nuclear_norm_problem(24, 20, "wide")
    counts = [
        solve(wide, name, tolerance=1e-8 * wide.magnitude).iterations for name in ("proximal_gradient", "accelerated")
    ]
    assert 4 * counts[1] < counts[0]


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"method": "newton"}, ValueError, r"method must be one of \['accelerated', .*\] or a solver, got 'newton'"),
        ({"tolerance": -1e-3}, ValueError, "tolerance must be finite and >= 0, got -0.001"),
        ({"tolerance": float("nan")}, ValueError, "tolerance must be finite"),
        ({"tolerance": "small"}, TypeError, "tolerance must be a real number, got 'small'"),
        ({"max_iter": 0}, ValueError, "max_iter must be at least 1, got 0"),
        ({"max_iter": 2.5}, TypeError, "max_iter must be an integer, got 2.5"),
        ({"start": np.ones(3)}, ValueError, r"shapes must agree, got anchor \(3, 2\), start \(3,\)"),
        ({"start": np.full((3, 2), np.nan)}, ValueError, "start must be finite, it holds NaN or Inf"),
        ({"start": torch.zeros(3, 2)}, TypeError, "all of one library"),
    ],
)
def test_bad_arguments_of_solve(arguments, error, message):
    problem = Subproblem(np.zeros((3, 2)), np.ones((3, 2)), np.ones((3, 2)), 1.0, L1(0.1))
    with pytest.raises(error, match=message):
        solve(problem, **arguments)


def test_bad_arguments_of_solvers():
    with pytest.raises(ValueError, match="step must be 'global' or 'group', got 'entry'"):
        Accelerated(step="entry")
    with pytest.raises(ValueError, match="stopping must be 'residual' or 'relative_decrease', got 'objective'"):
        ProximalGradient(stopping="objective")
    with pytest.raises(ValueError, match="step='group' needs a regularizer that separates into groups"):
        solve(nuclear_norm_problem(5, 4), Accelerated(step="group"))
    with pytest.raises(ValueError, match="exact: no exact method for NuclearNorm"):
        solve(nuclear_norm_problem(5, 4), Exact())
    with pytest.raises(ValueError, match="newton_raphson needs weight_sum"):
        solve(group_lasso_problem("zero_weight", 3, 3), NewtonRaphson())


def test_newton_raphson_as_published_is_slower_than_the_concave_form():
    """Both reach the solution; the published form needs more updates than the 15 of the exact solver."""
    problem = group_lasso_problem("near_threshold")
    published = solve(problem, "newton_raphson", max_iter=60)
    exact = solve(problem)
    assert published.iterations > 15
    assert np.allclose(published.point, exact.point, rtol=1e-5, atol=0)
