"""The nuclear norm in a diagonal metric: accuracy within a budget of iterations, the right rank, cold and warm."""

from __future__ import annotations

from functools import cache

import numpy as np
import plain
import pytest
from backends import BACKENDS, DOUBLE, TORCH32, to_numpy

from ramda_theory.regularizers import NuclearNorm, singular_values
from ramda_theory.subproblem import Subproblem, solve
from ramda_theory.subproblem.generated import NUCLEAR_NORM_METRICS, nuclear_norm_problem

PROBLEMS = [
    (64, 64, "moderate", 91, 60),
    (64, 64, "wide", 8e3, 192),
    (64, 64, "floor", 7e6, 42),
    (128, 784, "moderate", 470, 93),
    (128, 784, "wide", 2e5, 376),
]
"""Size, metric, its max/min, and the iterations within which the relative error must be 1e-8."""

every_problem = pytest.mark.parametrize(("rows", "columns", "metric", "spread", "iterations"), PROBLEMS)


@cache
def solved_cold(rows, columns, metric, iterations):
    """The problem, and the solution from a cold start after so many iterations whatever its accuracy."""
    problem = nuclear_norm_problem(rows, columns, metric)
    return problem, solve(problem, "accelerated", tolerance=0.0, max_iter=iterations)


@cache
def reference(rows, columns, metric, iterations):
    """A point certified to 1e-8 by the error bound, and its rank certified by a margin and a gap."""
    problem, cold = solved_cold(rows, columns, metric, iterations)
    x = solve(problem, "accelerated", start=cold.point, tolerance=0.0, max_iter=iterations).point
    error = float(problem.error_bound(x)) / np.sqrt(np.min(problem.metric))
    assert error <= 1e-8 * np.linalg.norm(x)
    singular = np.linalg.svd(x, compute_uv=False)
    rank = int(np.sum(singular > 1e-10 * singular[0]))
    assert singular[rank - 1] > 1e3 * error
    # Beyond the rank, minus the gradient is inside the ball of the weight by far more than its error.
    assert float(problem.regularizer.nondegeneracy_margin(x, problem.gradient(x))) > 1e-4
    return x, rank


@every_problem
def test_cold_start(rows, columns, metric, spread, iterations):
    problem, cold = solved_cold(rows, columns, metric, iterations)
    assert np.max(problem.metric) / np.min(problem.metric) == pytest.approx(spread, rel=0.25)
    x, rank = reference(rows, columns, metric, iterations)
    assert np.linalg.norm(cold.point - x) <= 1e-8 * np.linalg.norm(x)
    assert cold.structure.rank == rank == problem.regularizer.structure(cold.point).rank


@every_problem
def test_warm_start(rows, columns, metric, spread, iterations):
    """From the solution with every entry off by 10 %, and from one of twice the rank."""
    problem, _ = solved_cold(rows, columns, metric, iterations)
    x, rank = reference(rows, columns, metric, iterations)
    noise = np.random.default_rng(0).standard_normal(x.shape)
    start = x * (1 + 0.1 * noise)
    warm = solve(problem, "accelerated", start=start, tolerance=0.0, max_iter=iterations)
    assert np.linalg.norm(warm.point - x) <= 1e-8 * np.linalg.norm(x)
    assert warm.structure.rank == rank == problem.regularizer.structure(warm.point).rank


@every_problem
def test_right_rank_at_every_useful_tolerance(rows, columns, metric, spread, iterations):
    """A solution called solved has the right rank, and no more than the error its residual allows."""
    problem, _ = solved_cold(rows, columns, metric, iterations)
    x, rank = reference(rows, columns, metric, iterations)
    for tolerance in (1e-6, 1e-9) if rows < 128 else (1e-6,):
        solution = solve(problem, tolerance=tolerance * problem.magnitude)
        assert solution.status == "solved" and solution.residual <= tolerance * problem.magnitude
        assert solution.structure.rank == rank
        error = np.sqrt(np.sum(problem.metric * (solution.point - x) ** 2))
        assert error <= float(problem.error_bound(solution.point)) * (1 + 1e-6)


@pytest.mark.parametrize("metric", NUCLEAR_NORM_METRICS)
def test_float32_on_torch(metric):
    """The default tolerance of the dtype is reached, with the rank of the float64 solution."""
    problem = nuclear_norm_problem(48, 40, metric)
    arrays = (TORCH32.array(a) for a in (problem.anchor, problem.grad_sum, problem.metric))
    solution = solve(Subproblem(*arrays, 1.0, problem.regularizer))
    expected = solve(problem, tolerance=1e-11 * problem.magnitude)
    assert (solution.status, expected.status) == ("solved", "solved")
    assert solution.structure == expected.structure == problem.regularizer.structure(solution.point)
    assert str(solution.point.dtype) == "torch.float32"


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
@pytest.mark.parametrize("shape", [(9, 6), (6, 9), (7, 7), (1, 5), (5, 1)])
@pytest.mark.parametrize("threshold", [0.0, 1e-6, 1e-2, 0.3, 0.99, 1.01])
def test_gram_and_svd_agree(threshold, shape, backend):
    """``threshold`` times the largest singular value: below 1e-3 by an SVD, above by the Gram matrix."""
    rng = np.random.default_rng(0)
    z = backend.round(rng.standard_normal(shape) * np.logspace(0, -3, shape[1]))
    u, s, vh = np.linalg.svd(z, full_matrices=False)
    x, rank = NuclearNorm(1.0).prox_structure(backend.array(z), threshold * s[0])
    expected = (u * np.maximum(s - threshold * s[0], 0)) @ vh
    assert np.linalg.norm(to_numpy(x) - expected) <= 1e-12 * s[0] + backend.eps * np.linalg.norm(expected)
    assert rank.rank == np.sum(s > threshold * s[0])


def test_gram_is_for_hosts(monkeypatch):
    """Where values cannot be looked at the SVD serves every threshold, the number of kept values included."""
    z = np.random.default_rng(0).standard_normal((9, 6))
    expected, rank = NuclearNorm(1.0).prox_structure(z, 2.0)
    monkeypatch.setattr(singular_values, "is_host", lambda array: False)
    for backend in DOUBLE:
        x, same_rank = NuclearNorm(1.0).prox_structure(backend.array(z), 2.0)
        assert np.allclose(to_numpy(x), expected, rtol=0, atol=1e-13) and same_rank == rank and 0 < rank.rank < 6


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
def test_rank_of_a_barely_positive_singular_value(backend):
    """What the threshold leaves is judged beside itself, not beside what was taken off."""
    z = np.diag([1.0, 1.0 - 1e-13, 0.5])
    x, rank = NuclearNorm(1.0).prox_structure(backend.array(z), 1.0 - 1e-9)
    assert rank.rank == 2 == NuclearNorm(1.0).structure(x).rank
    assert np.linalg.matrix_rank(to_numpy(x), tol=1e-12) == 2
    assert plain.value(NuclearNorm(1.0), to_numpy(x)) == pytest.approx(2e-9, rel=1e-3)
