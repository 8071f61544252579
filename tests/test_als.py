"""Alternating least squares on factors: against CVXPY, ADMM and one regression at a time, in metrics of any spread."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from backends import BACKENDS, DOUBLE, to_numpy
from cases import cases
from examples import EXAMPLES, example_problem
from hypothesis import given
from hypothesis import strategies as st

from ramda_theory.optim import ProxAdamW
from ramda_theory.regularizers import L1, NuclearNorm
from ramda_theory.subproblem import ADMM, ALS, Subproblem, solve
from ramda_theory.subproblem.problem import Candidate
from ramda_theory.subproblem.regressions import Factors, Regressions


def low_rank_problem(rng, shape, rank, spread, weight, dtype=np.float64):
    """The subproblem of a step of Adam's kind from a point of low rank, its metric spread over ``spread`` decades.

    The gradient is noise with singular values up to about half of the threshold and a move by rank 1.
    """

    def of_rank(r):
        return rng.standard_normal((shape[0], r)) @ rng.standard_normal((r, shape[1])) / np.sqrt(shape[1])

    rows, columns, entries = rng.random((shape[0], 1)), rng.random(shape[1]), rng.random(shape)
    point, metric, alpha = of_rank(rank), 10 ** (-spread * (rows + columns + entries) / 3), 1e-3
    noise = 0.5 * alpha * weight / sum(np.sqrt(shape))
    gradient = noise * rng.standard_normal(shape) + 1e-3 * metric * of_rank(1)
    arrays = (array.astype(dtype) for array in (point, gradient, metric))
    return Subproblem(*arrays, alpha, NuclearNorm(weight))


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
def test_the_dual_is_a_subgradient_of_psi(backend):
    psi = next(psi for psi in EXAMPLES if psi.as_matrices is not None)
    problem = example_problem(psi, backend)
    tolerance = max(1e-10, 10 * backend.eps) * problem.magnitude
    solution = solve(problem, "als", tolerance=tolerance)
    assert solution.status == "solved" and solution.iterations >= 1
    dual = to_numpy(solution.dual)
    off = float(psi.subdifferential_distance(solution.point, -backend.array(dual)))
    assert off <= 1e3 * backend.eps * max(1.0, np.linalg.norm(dual))
    point, anchor, grad_sum, metric = map(to_numpy, (solution.point, problem.anchor, problem.grad_sum, problem.metric))
    s = grad_sum + metric * (point - anchor) + problem.weight_sum * dual
    assert np.linalg.norm(s) <= tolerance + 10 * backend.eps * problem.magnitude


@given(st.data())
def test_meets_its_tolerance_where_the_accelerated_solver_does(data):
    case = data.draw(cases("NuclearNorm", empty=False, scales=3.0, spread=3.0))
    anchor = case.rng.standard_normal(case.z.shape)
    problem = Subproblem(anchor, case.diag * (anchor - case.z), case.diag, case.step, case.regularizer)
    tolerance = 1e-8 * problem.magnitude
    ours, theirs = solve(problem, "als", tolerance=tolerance), solve(problem, "accelerated", tolerance=tolerance)
    assert ours.status == "solved" and ours.residual <= tolerance
    if theirs.status == "solved":
        error = np.sqrt(np.sum(case.diag * (ours.point - theirs.point) ** 2))
        assert error <= 2.1 * tolerance / np.sqrt(np.min(case.diag))


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (7, 7)])
@pytest.mark.parametrize("weight", [1e-3, 0.03, 1.0])
def test_agrees_with_cvxpy(shape, weight):
    problem = low_rank_problem(np.random.default_rng(0), shape, 3, 2.0, weight)
    ours = solve(problem, "als", tolerance=1e-9 * problem.magnitude)
    assert ours.status == "solved"
    theirs = solve(problem, "cvxpy", tolerance=1e-6)
    assert float(problem.objective(ours.point)) <= float(problem.objective(theirs.point)) + 1e-12
    np.testing.assert_allclose(ours.point, theirs.point, atol=2e-3)


@pytest.mark.parametrize("spread", [1.0, 4.0, 8.0])
def test_rank_and_point_are_those_of_long_runs_of_another_solver(spread):
    problem = low_rank_problem(np.random.default_rng(1), (20, 30), 5, spread, 3e-3)
    tau = problem.weight_sum * problem.regularizer.weight
    ours = solve(problem, "als", start=problem.anchor, tolerance=1e-6 * tau)
    theirs = solve(problem, "admm", start=problem.anchor, tolerance=1e-6 * tau, max_iter=400_000)
    assert ours.status == theirs.status == "solved"
    assert ours.structure == theirs.structure == problem.regularizer.structure(ours.point)
    assert float(problem.error_bound(ours.point)) <= 1e-6 * tau / np.sqrt(np.min(problem.metric))
    assert abs(float(problem.objective(ours.point) - problem.objective(theirs.point))) <= 1e-9 * tau


@pytest.mark.parametrize("spread", [4.0, 8.0])
def test_a_stiff_metric_takes_a_fifth_of_admms_iterations(spread):
    problem = low_rank_problem(np.random.default_rng(2), (40, 60), 5, spread, 3e-3)
    tolerance = 0.1 * problem.weight_sum * problem.regularizer.weight
    # The default is "als" here.
    ours, theirs = (solve(problem, name, start=problem.anchor, tolerance=tolerance) for name in (None, "admm"))
    assert ours.status == theirs.status == "solved" and 5 * ours.iterations <= theirs.iterations


def test_the_first_round_of_regressions_solves_each_and_lowers_the_objective():
    """Rows by numpy.linalg.solve, one at a time; factors in between balanced or not, their product is the same."""
    rng = np.random.default_rng(3)
    problem = low_rank_problem(rng, (6, 8), 3, 3.0, 0.1)
    tau, metric, b = problem.weight_sum * 0.1, problem.metric, -problem.linear
    work = Regressions(problem, problem.regularizer, np.inf)  # any slope is small enough: one round
    found = work.begin(problem.anchor + 0.1 * rng.standard_normal((6, 8)), None)
    x, _ = work._rounds(np.concatenate(found[::2]) * np.sqrt(found.s), work._regressions, renewed=False)
    product = x[:6] @ x[6:].T
    left, right = found.u * np.sqrt(found.s), found.v * np.sqrt(found.s)
    for i in range(6):
        left[i] = np.linalg.solve((right.T * metric[i]) @ right + tau * np.eye(found.rank), right.T @ b[i])
    for j in range(8):
        right[j] = np.linalg.solve((left.T * metric[:, j]) @ left + tau * np.eye(found.rank), left.T @ b[:, j])
    np.testing.assert_allclose(product, left @ right.T, rtol=0, atol=1e-9)
    assert float(problem.objective(product)) < float(problem.objective(found.product))


@pytest.mark.parametrize("seed", range(4))
def test_dropping_and_adding_components_lowers_the_objective(seed):
    rng = np.random.default_rng(seed)
    problem = low_rank_problem(rng, (8, 12), 3, 2.0, 0.0)
    size = np.linalg.norm(problem.metric * problem.anchor, 2)
    problem = dataclasses.replace(problem, regularizer=NuclearNorm(0.3 * size / problem.weight_sum))
    work = Regressions(problem, problem.regularizer, np.inf)
    many = work.begin(problem.anchor + 1e-2 * rng.standard_normal((8, 12)), None)
    fewer = work.dropped(many)
    assert fewer.rank < many.rank
    assert float(problem.objective(fewer.product)) <= float(problem.objective(many.product))
    none = Factors(*(array[..., :0] for array in many))
    more = work.completed(none)[0]
    assert more.rank >= 1
    assert float(problem.objective(more.product)) < float(problem.objective(none.product))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (3, 3)])
@pytest.mark.parametrize("weight", [1e-12, 1e-3, 1e6])
def test_smallest_shapes_and_weights(shape, weight):
    problem = low_rank_problem(np.random.default_rng(4), shape, 1, 3.0, weight)
    solution = solve(problem, "als")
    assert solution.status == "solved"
    if weight == 1e6:
        assert not solution.point.any() and solution.structure.count == 0


@pytest.mark.parametrize("exponent", [-60, -20, 0, 20, 60])
def test_any_scale(exponent):
    """Anchor and gradient scaled: solutions scale, and ranks stay."""
    problem = low_rank_problem(np.random.default_rng(5), (12, 9), 4, 3.0, 1e-2)
    plain, scale = solve(problem, "als"), 10.0**exponent
    scaled = dataclasses.replace(
        problem,
        anchor=scale * problem.anchor,
        grad_sum=scale * problem.grad_sum,
        regularizer=NuclearNorm(1e-2 * scale),
    )
    solution = solve(scaled, "als")
    assert solution.status == "solved" and solution.structure == plain.structure
    np.testing.assert_allclose(solution.point / scale, plain.point, rtol=0, atol=1e-7)


@pytest.mark.parametrize("shape", [(300, 320), (64, 64)])
def test_zero_weight_and_a_rank_that_is_not_low_are_left_to_admm(shape):
    problem = low_rank_problem(np.random.default_rng(6), shape, shape[0], 1.0, 0.0)
    assert solve(problem, "als").status == "solved"
    full = dataclasses.replace(problem, regularizer=NuclearNorm(1e-3))
    one, other = (solve(full, solver, tolerance=1e-6 * full.magnitude) for solver in ("als", "admm"))
    assert one.iterations == other.iterations
    np.testing.assert_array_equal(one.point, other.point)


def test_admm_goes_on_where_sweeps_do_not_suffice():
    problem = low_rank_problem(np.random.default_rng(7), (20, 30), 8, 1.0, 1.0)
    solution = solve(problem, ALS(sweeps=1), start=problem.anchor, tolerance=1e-10 * problem.magnitude)
    assert solution.status == "solved" and solution.iterations > 2


def test_float32_of_large_matrices_is_float64s_to_its_tolerance():
    problem = low_rank_problem(np.random.default_rng(8), (200, 260), 6, 5.0, 3e-3, np.float32)
    basis = np.linalg.qr(problem.anchor @ np.random.default_rng(0).standard_normal((260, 8)))[0].astype(np.float32)
    found = ALS()(problem, problem.anchor, problem.default_tolerance(), 100, basis=basis)
    assert found.point.dtype == np.float32 and found.iterations <= 10
    assert float(problem.residual(found.point)) <= problem.default_tolerance()
    assert problem.increase(found.point, problem.anchor) <= 0
    wide = Subproblem(
        *(a.astype(float) for a in (problem.anchor, problem.grad_sum, problem.metric)), 1e-3, NuclearNorm(3e-3)
    )
    exact = solve(wide, "als", tolerance=1e-4 * problem.default_tolerance())
    assert abs(found.structure.count - exact.structure.count) <= 1


def test_a_threshold_far_below_rounding_adds_no_components():
    """As at the end of a decay of the learning rate: what float32 makes of N is no reason to go on."""
    rng = np.random.default_rng(0)
    shape, tau = (200, 220), 1e-9
    point = (rng.standard_normal((200, 4)) @ rng.standard_normal((4, 220)) / 4).astype(np.float32)
    metric, gradient = 10 ** (-2 * rng.random(shape)), tau * rng.standard_normal(shape)
    problem = Subproblem(point, gradient.astype(np.float32), metric.astype(np.float32), 1.0, NuclearNorm(tau))
    solution = solve(problem, start=point, max_iter=100)
    assert solution.status == "solved" and solution.iterations <= 5


def test_singular_values_that_are_left_above_the_threshold_count_as_residual():
    """N = 1.01 tau is within the tolerance, but the point must not lie above the start."""
    b, start = np.zeros((6, 9)), np.zeros((6, 9))
    b[0, 0], start[0, 0] = 1.01, 0.01
    problem = Subproblem(b, 0 * b, np.ones((6, 9)), 1.0, NuclearNorm(1.0))
    found = ALS()(problem, start, 0.2, 100, point=0 * b, dual=0 * b)
    assert problem.increase(found.point, start) <= 0


def test_a_solution_of_rank_0_is_where_any_solver_can_begin():
    problem = low_rank_problem(np.random.default_rng(0), (6, 9), 2, 1.0, 1e6)
    zero = ALS()(problem, problem.anchor, 1e-8 * problem.magnitude, 100)
    assert not zero.point.any() and zero.basis.shape == (6, 0)
    easier = dataclasses.replace(problem, regularizer=NuclearNorm(1.0))
    for solver in (ALS(), ADMM()):
        found = solver(easier, problem.anchor, 1e-6, 100, dual=zero.dual, point=zero.point, basis=zero.basis)
        assert float(easier.residual(found.point)) <= 1e-6


def test_equations_of_many_rows_do_not_fill_the_memory(monkeypatch):
    """(rows, r, r) numbers of a tall matrix are not set up even where separable equations lead nowhere."""
    problem = low_rank_problem(np.random.default_rng(0), (3000, 200), 60, 1.0, 1.0, np.float32)
    basis = np.linalg.svd(problem.anchor.T, full_matrices=False)[0][:, :60]
    asked, one_by_one = [], Regressions._regressions
    monkeypatch.setattr(Regressions, "_separable", lambda *_: lambda right: 0.0 * right)
    monkeypatch.setattr(Regressions, "_regressions", lambda *a: asked.append(a[2].shape[1]) or one_by_one(*a))
    for rank in (60, 8):
        ALS(sweeps=1)(problem, problem.anchor, 1e-3 * problem.default_tolerance(), 2, basis=basis[:, :rank])
    assert set(asked) == {8}


def test_what_is_not_finite_is_no_start_for_the_next_step(monkeypatch):
    def diverged(solver, problem, start, tolerance, max_iter, known):
        return Candidate(torch.full_like(start, torch.nan), max_iter, dual=torch.full_like(start, torch.nan))

    weight = torch.nn.Parameter(torch.randn(4, 5, generator=torch.Generator().manual_seed(0)))
    optimizer = ProxAdamW([weight], 1e-3, regularizer=NuclearNorm(1e-3))
    for broken in (True, False):
        with monkeypatch.context() as patch:
            if broken:
                patch.setattr("ramda_theory.kernels.eager.solve.by_numpy", diverged)
            before = weight.detach().clone()
            weight.grad = torch.ones(4, 5)
            optimizer.step()
        assert bool(weight.isfinite().all())
        assert torch.equal(weight, before) == broken
        assert ("solution" in optimizer.state[weight]) == (not broken)


def test_bad_arguments():
    with pytest.raises(ValueError, match="sweeps must be an integer >= 1, got 0"):
        ALS(sweeps=0)
    with pytest.raises(ValueError, match="als needs a nuclear norm, got L1"):
        solve(example_problem(L1(0.1), DOUBLE[0]), "als")
    with pytest.raises(ValueError, match="cannot be used with L1"):
        ProxAdamW([torch.nn.Parameter(torch.zeros(2, 2))], 1e-3, regularizer=L1(0.1), solver="als")


def test_it_is_an_option_of_optimizers_that_their_state_keeps():
    weight = torch.nn.Parameter(torch.randn(6, 8))
    weight.grad = torch.randn(6, 8)
    optimizer, other = (ProxAdamW([weight], 1e-3, regularizer=NuclearNorm(1e-3), solver=ALS(n)) for n in (3, 5))
    optimizer.step()
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["solver"] == ALS(sweeps=3)


def test_tensors_that_require_gradients_are_solved_too():
    problem = low_rank_problem(np.random.default_rng(9), (6, 8), 2, 3.0, 1e-2)
    leaf, gradient, metric = (torch.tensor(a) for a in (problem.anchor, problem.grad_sum, problem.metric))
    tensors = dataclasses.replace(problem, anchor=leaf.requires_grad_(), grad_sum=gradient, metric=metric)
    found = solve(tensors, "als")
    assert not found.point.requires_grad
    np.testing.assert_allclose(found.point, solve(problem, "als").point, atol=1e-9)


def test_units_that_seldom_fire_are_solved_for_as_well():
    """In their columns a metric of 1e-5 beside 1 lets a point be far off within the tolerance."""
    rng = np.random.default_rng(0)
    metric = 10 ** rng.uniform(-2, 0, (16, 32))
    metric[:4] = metric[:, :16] = 1e-8
    metric[4:, 16:22] = 10 ** rng.uniform(-6, -4, (12, 6))
    metric[15, 16:22] = 5e-3
    point = rng.standard_normal((16, 5)) @ rng.standard_normal((5, 32)) / 4
    arrays = (array.astype(np.float32) for array in (point, 1e-4 * metric * rng.standard_normal((16, 32)), metric))
    problem = Subproblem(*arrays, 1e-3, NuclearNorm(3.5e-3))
    arrays = (array.astype(float) for array in (problem.anchor, problem.grad_sum, problem.metric))
    wide = Subproblem(*arrays, 1e-3, NuclearNorm(3.5e-3))
    exact = solve(wide, "als", start=wide.anchor, tolerance=3.5e-9, max_iter=100_000)
    assert exact.status == "solved"
    far = np.linalg.norm((exact.point - point)[:, 16:22])
    left = {
        name: np.linalg.norm((solve(problem, name, start=problem.anchor).point - exact.point)[:, 16:22]) / far
        for name in ("als", "admm")
    }
    assert left["als"] <= 0.1 and left["admm"] >= 0.2, left


def test_a_solver_that_ends_higher_than_it_began_does_not_move_the_weights(monkeypatch):
    def astray(problem, start, tolerance, max_iter, **known):
        return Candidate(start + 1.0, max_iter)

    monkeypatch.setattr("ramda_theory.kernels.eager.solve.choose", lambda problem, method: astray)
    weight = torch.nn.Parameter(torch.randn(4, 5, generator=torch.Generator().manual_seed(0)))
    optimizer = ProxAdamW([weight], 1e-3, regularizer=NuclearNorm(1e-3), weight_decay=0.0)
    optimizer.record_inexactness = True
    before = weight.detach().clone()
    weight.grad = torch.ones(4, 5)
    optimizer.step()
    assert torch.equal(weight, before)
    assert optimizer.inexactness[weight].status == "max_iter"
