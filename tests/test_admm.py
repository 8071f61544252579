"""ADMM: its dual, warm starts, and the textbook's three updates against its one matrix."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from backends import BACKENDS, DOUBLE, TORCH32, to_numpy
from cases import cases
from examples import EXAMPLES, example_problem
from hypothesis import given
from hypothesis import strategies as st

from ramda_theory.regularizers import L1, MCP, NuclearNorm
from ramda_theory.subproblem import ADMM, Subproblem, solve
from ramda_theory.subproblem.admm import mean_of
from ramda_theory.subproblem.anderson import Anderson
from ramda_theory.subproblem.generated import nuclear_norm_problem
from ramda_theory.subproblem.idle import factors
from ramda_theory.subproblem.workspace import Workspace

CONVEX = [psi for psi in EXAMPLES if psi.convex]


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
@pytest.mark.parametrize("psi", CONVEX, ids=str)
def test_the_dual_is_a_subgradient_of_psi(psi, backend):
    """It is in d psi(point), and with it a subgradient of Q that bounds the left side of (7) from above."""
    problem = example_problem(psi, backend)
    tolerance = max(1e-10, 10 * backend.eps) * problem.magnitude
    solution = solve(problem, "admm", tolerance=tolerance)
    assert solution.status == "solved"
    point, dual = to_numpy(solution.point), to_numpy(solution.dual)
    off = float(psi.subdifferential_distance(solution.point, -backend.array(dual)))
    assert off <= 1e3 * backend.eps * max(1.0, np.linalg.norm(dual))
    data = (to_numpy(array) for array in (problem.anchor, problem.grad_sum, problem.metric))
    anchor, grad_sum, metric = data
    s = grad_sum + metric * (point - anchor) + problem.weight_sum * dual
    rounding = 10 * backend.eps * problem.magnitude
    assert solution.residual - rounding <= np.linalg.norm(s) <= tolerance + rounding


def textbook(problem, rho, relaxation, iterations):
    """W = (b + rho Z - Y)/(P + rho), W' = r W + (1 - r) Z, Z = prox(W' + Y/rho), Y += rho (W' - Z), from Z0 and Y0."""
    metric, b = problem.metric, -problem.linear
    z = problem.anchor.copy()
    y = b - metric * z
    z = problem.regularizer.prox(z + y / rho, problem.weight_sum / rho)
    y = rho * (problem.anchor + y / rho - z)
    for _ in range(iterations - 1):
        w = (b + rho * z - y) / (metric + rho)
        relaxed = relaxation * w + (1 - relaxation) * z
        z = problem.regularizer.prox(relaxed + y / rho, problem.weight_sum / rho)
        y = y + rho * (relaxed - z)
    return z, y / problem.weight_sum


@pytest.mark.parametrize("relaxation", [1.0, 1.6])
@pytest.mark.parametrize("psi", CONVEX, ids=str)
def test_one_matrix_does_what_the_three_updates_do(psi, relaxation):
    problem = example_problem(psi, DOUBLE[0])
    rho = mean_of(np, problem.metric)
    for iterations in (1, 2, 7):
        solution = solve(problem, ADMM(relaxation, memory=0, penalty=rho), tolerance=0.0, max_iter=iterations)
        z, y = textbook(problem, rho, relaxation, iterations)
        np.testing.assert_allclose(solution.point, z, rtol=0, atol=1e-12 * np.linalg.norm(problem.anchor))
        np.testing.assert_allclose(solution.dual, y, rtol=0, atol=1e-11 * np.linalg.norm(y))


@pytest.mark.parametrize("psi", CONVEX, ids=str)
def test_rows_worked_on_in_turn_make_the_same_steps(psi, monkeypatch):
    problem = example_problem(psi, DOUBLE[0])
    tolerance = 1e-6 * problem.magnitude
    whole = solve(problem, "admm", tolerance=tolerance)
    monkeypatch.setattr("ramda_theory.subproblem.admm.BLOCK", 1)
    rows = solve(problem, "admm", tolerance=tolerance)
    assert rows.iterations == whole.iterations
    np.testing.assert_allclose(rows.point, whole.point, rtol=0, atol=1e-9 * np.linalg.norm(problem.anchor))


@pytest.mark.parametrize("psi", CONVEX, ids=str)
def test_a_solution_is_where_the_next_begins(psi):
    """At the same subproblem nothing is left to do; at one nearby less than from its point alone; and from duals that
    are wrong the same solution is reached."""
    problem = example_problem(psi, DOUBLE[0])
    tolerance = 1e-9 * problem.magnitude
    solution = solve(problem, "admm", tolerance=tolerance)
    assert solve(problem, "admm", start=solution, tolerance=tolerance).iterations == 1
    noise = 1e-4 * np.random.default_rng(0).standard_normal(problem.anchor.shape)
    near = dataclasses.replace(problem, grad_sum=problem.grad_sum + noise, weight_sum=1.01 * problem.weight_sum)
    counts = [solve(near, "admm", start=start, tolerance=tolerance).iterations for start in (solution, None)]
    assert counts[0] <= counts[1]
    for dual in (0 * solution.dual, -solution.dual, 100 * noise):
        again = solve(problem, "admm", start=dataclasses.replace(solution, dual=dual), tolerance=tolerance)
        assert again.status == "solved"
        assert np.sqrt(np.sum(problem.metric * (again.point - solution.point) ** 2)) <= 2 * float(
            tolerance / np.sqrt(np.min(problem.metric))
        )


def test_other_solvers_take_the_point_of_a_solution():
    problem = example_problem(L1(0.7), DOUBLE[0])
    solution = solve(problem, "admm")
    assert solve(problem, "accelerated", start=solution).iterations <= 2
    assert solve(problem, "accelerated").dual is None


@pytest.mark.parametrize("kind", ["L1", "GroupLasso", "SparseGroupLasso"])
@given(st.data())
def test_agrees_with_the_exact_solution(kind, data):
    """Any shape and weight, metrics over one order of magnitude: within the error that (7) implies."""
    case = data.draw(cases(kind, empty=False, scales=3.0, spread=1.0))
    anchor = case.rng.standard_normal(case.z.shape)
    problem = Subproblem(anchor, case.diag * (anchor - case.z), case.diag, case.step, case.regularizer)
    exact = solve(problem, "exact")
    solution = solve(problem, "admm", tolerance=1e-9 * problem.magnitude)
    assert solution.status == "solved"
    error = np.sqrt(np.sum(case.diag * (solution.point - exact.point) ** 2))
    assert error <= (1e-9 + 1e-13) * problem.magnitude / np.sqrt(np.min(case.diag))


@given(st.data())
def test_nuclear_norms_of_any_shape_meet_their_tolerance(data):
    case = data.draw(cases("NuclearNorm", empty=False, scales=3.0, spread=3.0))
    anchor = case.rng.standard_normal(case.z.shape)
    problem = Subproblem(anchor, case.diag * (anchor - case.z), case.diag, case.step, case.regularizer)
    tolerance = 1e-8 * problem.magnitude
    ours, theirs = solve(problem, "admm", tolerance=tolerance), solve(problem, "accelerated", tolerance=tolerance)
    assert ours.status == "solved" and ours.residual <= tolerance
    if theirs.status == "solved":
        error = np.sqrt(np.sum(case.diag * (ours.point - theirs.point) ** 2))
        assert error <= 2.1 * tolerance / np.sqrt(np.min(case.diag))


@pytest.mark.parametrize(("metric", "share"), [("moderate", 0.7), ("wide", 0.35), ("floor", 0.7)])
def test_fewer_iterations_than_the_accelerated_solver(metric, share):
    """Cold, at the same tolerance and rank; most where the metric is spread widely and evenly."""
    problem = nuclear_norm_problem(64, 64, metric)
    for tolerance in (2.4e-5, 1e-9):
        ours, theirs = (solve(problem, m, tolerance=tolerance * problem.magnitude) for m in ("admm", "accelerated"))
        assert ours.structure == theirs.structure
        assert ours.iterations <= share * theirs.iterations


def test_float32_data_are_solved_in_float32_unless_the_tolerance_is_too_tight():
    problem = nuclear_norm_problem(24, 30, "moderate")
    single = Subproblem(*(TORCH32.array(a) for a in (problem.anchor, problem.grad_sum, problem.metric)), 1.0,
                        problem.regularizer)  # fmt: skip
    for tolerance, dtype in ((2e-5, torch.float32), (1e-7, torch.float64)):
        solution = solve(single, "admm", tolerance=tolerance * problem.magnitude)
        assert solution.status == "solved" and solution.dual.dtype == dtype


def test_the_objective_condition_is_met():
    """From a start that is better than what a loose tolerance allows, the iterations go on until nothing is lost."""
    problem = nuclear_norm_problem(24, 20, "moderate")
    best = solve(problem, tolerance=1e-11 * problem.magnitude)
    start = best.point + 1e-7 * np.random.default_rng(0).standard_normal(best.point.shape)
    loose = 1e-2 * problem.magnitude
    solution = solve(problem, "admm", start=start, tolerance=loose)
    assert solution.status == "solved" and solution.descent
    assert problem.increase(solution.point, start) <= 0


def test_bad_arguments():
    for arguments, message in (
        ({"relaxation": 2.0}, r"relaxation must be in \(0, 2\), got 2.0"),
        ({"relaxation": 0.0}, "relaxation must be finite and > 0"),
        ({"memory": -1}, "memory must be an integer >= 0, got -1"),
        ({"memory": 2.5}, "memory must be an integer >= 0"),
        ({"penalty": 0.0}, "penalty must be finite and > 0"),
    ):
        with pytest.raises(ValueError, match=message):
            ADMM(**arguments)
    with pytest.raises(ValueError, match="admm needs a convex regularizer, got MCP"):
        solve(Subproblem(np.ones(3), np.ones(3), np.ones(3), 1.0, MCP(0.1, 3.0)), "admm")
    problem = nuclear_norm_problem(5, 4)
    other = solve(nuclear_norm_problem(4, 5), "admm")
    with pytest.raises(ValueError, match="shapes must agree"):
        solve(problem, "admm", start=other)


# -- the extrapolation -------------------------------------------------------------------------------------------------


def advance(extrapolation, x, change, size):
    """The x after this change, whose size is given."""
    for room, array in zip(extrapolation.room(x), (change, x + change), strict=True):
        room[...] = array
    return extrapolation(size)


def linear_iteration(extrapolation, matrix, right, x, steps):
    """x <- matrix x + right, extrapolated; the sizes of the changes."""
    sizes = []
    for _ in range(steps):
        change = matrix @ x + right - x
        sizes.append(float(np.linalg.norm(change)))
        x = advance(extrapolation, x, change, sizes[-1])
    return np.array(sizes)


def test_linear_iterations_end_after_as_many_steps_as_there_are_unknowns():
    """Anderson's method is then GMRES: four unknowns are found in six steps."""
    rng = np.random.default_rng(0)
    for _ in range(3):
        matrix, right, start = rng.standard_normal((4, 4)) / 3, *rng.standard_normal((2, 4))
        sizes = linear_iteration(Anderson(np, 5), matrix, right, start, 6)
        assert sizes[-1] <= 1e-9 * sizes[0]


def by_differences(changes, images):
    """The least squares of the definition, with the differences themselves."""
    dF, dG = np.diff(changes, axis=0).T, np.diff(images, axis=0).T
    return images[-1] - dG @ np.linalg.lstsq(dF, changes[-1])[0]


@pytest.mark.parametrize("shape", [(12,), (3, 4)])
def test_a_step_is_that_of_the_definition(shape):
    """Over the last three differences, also where changes become ever smaller, as they do."""
    rng = np.random.default_rng(1)
    extrapolation, changes, images, x = Anderson(np, 3), [], [], rng.standard_normal(shape)
    for step in range(9):
        change = 0.1**step * rng.standard_normal(shape)
        changes.append(change.ravel())
        images.append((x + change).ravel())
        x = advance(extrapolation, x, change, 0.1**step)
        expected = by_differences(np.array(changes[-4:]), np.array(images[-4:])) if step else images[0]
        np.testing.assert_allclose(x.ravel(), expected, rtol=0, atol=1e-9)


def test_no_memory_is_the_iteration_itself():
    extrapolation, x = Anderson(np, 0), np.ones(3)
    for step in range(4):
        x, before = advance(extrapolation, x, np.full(3, 0.5), 1.0), x
        np.testing.assert_array_equal(before, 1.0 + 0.5 * step)
        np.testing.assert_array_equal(x, before + 0.5)


def test_a_residual_that_rises_makes_it_forget():
    """The step after a rise is a plain one, and what was before it does not count afterwards."""
    rng = np.random.default_rng(0)
    extrapolation, changes = Anderson(np, 3), rng.standard_normal((5, 6))
    x, images = rng.standard_normal(6), []
    for change, size in zip(changes, (1.0, 0.5, 0.2, 5.0, 0.1), strict=True):
        images.append(x + change)
        x = advance(extrapolation, x, change, size)
        if size == 5.0:
            np.testing.assert_array_equal(x, images[-1])
    np.testing.assert_allclose(x, by_differences(changes[-2:], np.array(images[-2:])), rtol=1e-9)


@pytest.mark.parametrize("columns", [0, 7])
def test_factors_of_a_matrix_whose_rank_is_known_or_not(columns):
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((30, 5)) @ rng.standard_normal((5, 20))
    u, s, v = factors(np, matrix, columns)
    assert s.shape == (5,) and s.dtype == np.float64
    np.testing.assert_allclose((u * s) @ v.T, matrix, atol=1e-12)
    np.testing.assert_allclose(s, np.linalg.svd(matrix, compute_uv=False)[:5], rtol=1e-12)
    for basis in (u, v):
        np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-12)


def test_tensors_that_require_gradients_are_solved_too():
    problem = nuclear_norm_problem(12, 10, "moderate")
    data = [torch.tensor(a, requires_grad=True) for a in (problem.anchor, problem.grad_sum, problem.metric)]
    solution = solve(Subproblem(*data, 1.0, problem.regularizer), "admm")
    expected = solve(problem, "admm")
    assert solution.status == "solved"
    np.testing.assert_allclose(to_numpy(solution.point.detach()), expected.point, atol=1e-6)


def test_one_solve_after_another_works_in_the_same_memory(monkeypatch):
    """Two at once do not, and what a solve hands back is not in it."""
    like = np.zeros((3, 4))
    first, second = Workspace(np, like, 2), Workspace(np, like, 2)
    assert not np.shares_memory(first.arrays, second.arrays)
    memory = first.arrays
    first.give_back()
    again = Workspace(np, like[:2], 2)
    assert np.shares_memory(again.arrays, memory) and again.arrays.shape == (2, 2, 4)
    problem = nuclear_norm_problem(12, 10, "moderate")
    monkeypatch.setattr(
        L1, "prox_structure", lambda self, z, step: (z, None)
    )  # a proximal map that hands on its argument
    for psi in (problem.regularizer, L1(0.0)):
        problem = dataclasses.replace(problem, regularizer=psi)
        solution = solve(problem, "admm")
        point, dual = solution.point.copy(), solution.dual.copy()
        solve(dataclasses.replace(problem, grad_sum=2 * problem.grad_sum), "admm")
        np.testing.assert_array_equal(solution.point, point)
        np.testing.assert_array_equal(solution.dual, dual)


@pytest.mark.parametrize("seed", [0, 3, 9])
def test_float32_stops_where_float64_agrees(seed):
    """Also where the residual in float32, within rounding of the tolerance, would be a little below it."""
    rng = np.random.default_rng(seed)
    anchor, grad_sum = (rng.standard_normal((40, 30)).astype(np.float32) for _ in range(2))
    metric = np.exp(2.0 * rng.standard_normal((40, 30))).astype(np.float32)
    solution = solve(Subproblem(anchor, grad_sum, metric, 1.3, NuclearNorm(0.3)), "admm")
    assert solution.status == "solved" and solution.residual <= solution.tolerance
