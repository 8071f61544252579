"""The subproblem: its objective, its gradient, how far from solved a point is, and what it refuses."""

from __future__ import annotations

import numpy as np
import plain
import pytest
import torch
from backends import BACKENDS, DOUBLE, NUMPY64, to_numpy
from cases import CONVEX_KINDS, KINDS, METRIC_KINDS, cases
from hypothesis import given
from hypothesis import strategies as st

from ramda_theory.regularizers import L1, MCP, GroupLasso, NuclearNorm
from ramda_theory.subproblem import Subproblem, solve


def make(case, backend, anchor_size=1.0):
    """The case's data as a subproblem with an anchor, and its arrays as float64 values."""
    size = anchor_size * np.max(np.abs(case.z), initial=0.0) / np.max(case.diag, initial=1.0)
    anchor = backend.round(size * case.rng.standard_normal(case.z.shape))
    metric = backend.round(case.diag)
    grad_sum = backend.round(metric * anchor - case.z)
    arrays = [backend.array(a, case.layout) for a in (anchor, grad_sum, metric)]
    return Subproblem(*arrays, case.step, case.regularizer), anchor, grad_sum, metric


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_objective_gradient_and_linear_term(kind, backend, data):
    """Q(x) = alpha psi(x) + <V, x> + 1/2 <x - W0, P (x - W0)>, summed entry by entry in extended precision."""
    case = data.draw(cases(kind))
    problem, anchor, grad_sum, metric = make(case, backend)
    x = backend.round(anchor + case.rng.standard_normal(anchor.shape) * np.max(np.abs(anchor), initial=0.0))
    step = np.longdouble(x) - anchor
    terms = grad_sum * np.longdouble(x) + metric * step**2 / 2
    psi = case.step * plain.value(case.regularizer, x)
    q = problem.objective(backend.array(x))
    assert q.ndim == 0 and str(q.dtype).endswith("float64")
    assert abs(float(q) - float(np.sum(terms) + psi)) <= 1e-12 * (float(np.sum(np.abs(terms))) + psi)
    gradient = to_numpy(problem.gradient(backend.array(x)))
    assert np.all(np.abs(gradient - (grad_sum + metric * step)) <= 4e-16 * (np.abs(grad_sum) + metric * np.abs(step)))
    assert np.all(
        np.abs(to_numpy(problem.linear) - (grad_sum - metric * np.longdouble(anchor)))
        <= 4e-16 * (np.abs(grad_sum) + metric * np.abs(anchor))
    )


def test_proxgen_is_the_same_object():
    """(6) times eta: <m, W> + 1/(2 eta) <W - w, P (W - w)> + psi(W) is Q/eta of Subproblem(w, eta m, P, eta, psi)."""
    rng = np.random.default_rng(0)
    w, m, x = rng.standard_normal((3, 5, 4))
    metric, eta, psi = rng.uniform(0.1, 2, (5, 4)), 0.03, GroupLasso(0.2)
    problem = Subproblem(w, eta * m, metric, eta, psi)
    published = np.sum(m * x) + np.sum(metric * (x - w) ** 2) / (2 * eta) + plain.value(psi, x)
    assert float(problem.objective(x)) == pytest.approx(eta * published, rel=1e-13)
    solution = solve(problem).point
    assert float(psi.subdifferential_distance(solution, m + metric * (solution - w) / eta)) <= 1e-12


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
@pytest.mark.parametrize("kind", METRIC_KINDS)
@given(st.data())
def test_residual_vanishes_at_the_solution_only(kind, backend, data):
    """It is rounding there, and at least min P ||x - x*|| elsewhere, by strong convexity."""
    case = data.draw(cases(kind, empty=False, spread=4.0))
    problem, _, _, metric = make(case, backend)
    if not case.regularizer.has_metric_prox(problem.metric, case.step):
        return
    solution = solve(problem)
    slack = 1e-13 * problem.magnitude
    assert solution.status == "solved" and solution.residual <= slack
    if case.regularizer.convex:
        best = to_numpy(solution.point)
        away = best + np.max(np.abs(case.z / metric)) * case.rng.standard_normal(best.shape)
        at_least = np.min(metric) * np.linalg.norm(away - best)
        assert float(problem.residual(backend.array(away))) >= (1 - 1e-9) * at_least - slack


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
@pytest.mark.parametrize("kind", CONVEX_KINDS)
@given(st.data())
def test_error_bound_holds(kind, backend, data):
    """||x - x*||_P <= error_bound(x) at random points near and far, with equality if psi is 0."""
    case = data.draw(cases(kind, empty=False, spread=1.5 if kind == "NuclearNorm" else 9.0))
    problem, _, _, metric = make(case, backend)
    solution = solve(problem, tolerance=1e-13 * problem.magnitude)
    slack = float(problem.error_bound(solution.point)) + 1e-15 * np.linalg.norm(case.z / np.sqrt(metric))
    best = to_numpy(solution.point)
    size = np.max(np.abs(case.z / metric))
    for distance in (1e-8, 1e-3, 1.0, 1e3):
        for structured in (False, True):
            noise = case.rng.standard_normal(best.shape) * (best != 0 if structured else 1)
            x = best + distance * size * noise
            error = np.sqrt(np.sum(metric * (x - best) ** 2))
            bound = float(problem.error_bound(backend.array(x)))
            assert error <= bound * (1 + 1e-9) + 2 * slack
            if case.regularizer.weight == 0 and getattr(case.regularizer, "l2", 0) == 0 and distance > 1e-4:
                assert bound == pytest.approx(error, rel=1e-6)


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
@pytest.mark.parametrize("kind", METRIC_KINDS)
@given(st.data())
def test_increase_sees_what_the_objective_cannot(kind, backend, data):
    """Q(x) - Q(start) from x - start: its sign is right for moves far below the rounding of Q itself."""
    case = data.draw(cases(kind, empty=False, scales=3.0, spread=3.0))
    problem, _, _, metric = make(case, backend, anchor_size=1e3)
    if not case.regularizer.has_metric_prox(problem.metric, case.step):
        return
    best = solve(problem).point
    assert problem.increase(best, best) <= 0
    far = backend.array(to_numpy(best) + np.max(np.abs(case.z / metric)) * case.rng.standard_normal(case.z.shape))
    rise = float(problem.objective(far)) - float(problem.objective(best))
    scale = float(np.sum(np.abs(to_numpy(problem.grad_sum) * to_numpy(best)))) + abs(float(problem.objective(best)))
    assert problem.increase(far, best) == pytest.approx(rise, rel=1e-9, abs=1e-12 * scale)
    assert problem.increase(best, far) == pytest.approx(-rise, rel=1e-9, abs=1e-12 * scale)


def test_increase_of_a_tiny_move():
    """A move of 1e-10 of the size of x away from the minimiser raises Q by 1e-20 of its size; one back lowers it."""
    rng = np.random.default_rng(0)
    anchor = 1e3 * rng.standard_normal(50)
    problem = Subproblem(anchor, rng.standard_normal(50), rng.uniform(1, 2, 50), 0.0, L1(0.0))
    best = solve(problem).point
    moved = best + 1e-7 * rng.standard_normal(50)
    assert problem.increase(moved, best) > 0 > problem.increase(best, moved)
    true = float(np.sum(problem.metric * (np.longdouble(moved) - best) ** 2) / 2)
    assert problem.increase(moved, best) == pytest.approx(true, rel=1e-3)
    lost = float(problem.objective(moved)) - float(problem.objective(best))
    assert abs(lost - true) > 0.1 * true  # the plain difference does not see it


GOOD = {"anchor": np.zeros((3, 2)), "grad_sum": np.ones((3, 2)), "metric": np.ones((3, 2))}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"grad_sum": np.ones((2, 3))}, ValueError, r"shapes must agree, got anchor \(3, 2\), grad_sum \(2, 3\)"),
        ({"metric": np.ones(3)}, ValueError, "shapes must agree"),
        ({"anchor": np.full((3, 2), np.nan)}, ValueError, "anchor must be finite, it holds NaN or Inf"),
        ({"grad_sum": np.full((3, 2), np.inf)}, ValueError, "grad_sum must be finite"),
        ({"metric": np.full((3, 2), np.inf)}, ValueError, "metric must be finite"),
        (
            {"metric": np.array([[1, 1], [1, 0], [1, 1.0]])},
            ValueError,
            "metric must be positive .* smallest entry is 0",
        ),
        ({"metric": -np.ones((3, 2))}, ValueError, "metric must be positive everywhere, its smallest entry is -1"),
        ({"weight_sum": -0.5}, ValueError, "weight_sum must be finite and >= 0, got -0.5"),
        ({"weight_sum": float("nan")}, ValueError, "weight_sum must be finite"),
        ({"weight_sum": "1"}, TypeError, "weight_sum must be a real number"),
        ({"regularizer": "l1"}, TypeError, "regularizer must be a Regularizer, got 'l1'"),
        ({"regularizer": L1}, TypeError, "regularizer must be a Regularizer"),
        ({"anchor": torch.zeros(3, 2)}, TypeError, "all of one library"),
        ({"metric": np.ones((3, 2), dtype=int)}, TypeError, "metric must have a real floating dtype, got int64"),
        ({"grad_sum": np.ones((3, 2)) + 0j}, TypeError, "grad_sum must have a real floating dtype, got complex128"),
        ({"anchor": [[0.0, 0.0]] * 3}, TypeError, "anchor: list"),
    ],
)
def test_what_a_subproblem_refuses(change, error, message):
    arguments = {**GOOD, "weight_sum": 1.0, "regularizer": L1(1.0), **change}
    with pytest.raises(error, match=message):
        Subproblem(**arguments)


def test_points_of_the_wrong_shape_and_bounds_without_convexity():
    problem = Subproblem(**GOOD, weight_sum=1.0, regularizer=MCP(1.0, 2.0))
    for act in (problem.objective, problem.gradient, problem.residual):
        with pytest.raises(ValueError, match=r"shapes must agree, got anchor \(3, 2\), x \(3,\)"):
            act(np.ones(3))
    with pytest.raises(ValueError, match="the error bound needs a convex regularizer"):
        problem.error_bound(np.ones((3, 2)))


@pytest.mark.parametrize("regularizer", [GroupLasso(1.0), NuclearNorm(1.0)], ids=str)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_empty_arrays(regularizer, shape):
    for backend in DOUBLE:
        empty = backend.array(np.zeros(shape))
        for method in (None, "accelerated", "proximal_gradient"):
            solution = solve(Subproblem(empty, empty, empty, 1.0, regularizer), method)
            assert solution.status == "solved" and tuple(solution.point.shape) == shape
            assert solution.residual == 0 and solution.structure.dimension == 0


def test_magnitude_and_default_tolerance():
    problem = Subproblem(np.array([3.0]), np.array([4.0]), np.array([2.0]), 1.0, L1(1.0))
    assert problem.magnitude == pytest.approx(4 + 6 + 2)
    assert problem.default_tolerance() == pytest.approx(12 * 2.0 ** (-52 * 2 / 3))
    single = Subproblem(*(NUMPY64.array([v]).astype(np.float32) for v in (3, 4, 2)), 1.0, L1(1.0))
    assert single.default_tolerance() == pytest.approx(12 * 2.0 ** (-23 * 2 / 3))
