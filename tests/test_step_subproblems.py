"""The subproblems that steps solve: exact solutions at rounding level, inexact ones within their tolerances."""

from __future__ import annotations

import math

import numpy as np
import pytest
from backends import DOUBLE, NUMPY64
from stepping import SHAPE, steps_of, varying

from ramda_theory.diagnostics import inexactness
from ramda_theory.methods import RAMDA, RMDA, ProxGen, SampledGradient, Schedule, Settings
from ramda_theory.problems import PROBLEMS, group_lasso, lasso, low_rank
from ramda_theory.regularizers import L1, MCP, ElasticNet, GroupLasso, GroupMCP
from ramda_theory.run import run
from ramda_theory.subproblem import (
    Accelerated,
    ConstantTolerance,
    GeometricTolerance,
    PolynomialTolerance,
    ProximalGradient,
    Subproblem,
)

on_doubles = pytest.mark.parametrize("backend", DOUBLE, ids=str)


@on_doubles
@pytest.mark.parametrize(
    "psi",
    [L1(0.3), ElasticNet(0.3, 0.1), GroupLasso(0.3, dims=(1,)), GroupLasso(0.2, dims=(0, 1)), MCP(0.3, 3.0)],
    ids=lambda psi: type(psi).__name__,
)
@pytest.mark.parametrize("kind", [RAMDA, RMDA])
def test_every_exact_solution_meets_7_at_rounding_level(kind, psi, backend):
    method = kind(psi)
    for state in steps_of(method, backend):
        problem = method.subproblem(state)
        assert float(problem.residual(state.w_hat)) <= 4e-16 * problem.magnitude * (1 if kind is RMDA else 4)


def test_the_subproblem_is_that_of_the_step():
    method = RAMDA(L1(0.3))
    state = list(steps_of(method, NUMPY64, count=7))[-1]
    problem = method.subproblem(state)
    assert problem.weight_sum == pytest.approx(sum(varying(t).lr * math.sqrt(t) for t in range(1, 8)), rel=1e-14)
    np.testing.assert_array_equal(problem.metric, np.cbrt(state.grad_sq_sum) + varying(7).eps)
    with pytest.raises(ValueError, match="before the first step"):
        method.subproblem(method.init(np.zeros(SHAPE)))
    with pytest.raises(ValueError, match="before the first step"):
        method.subproblem(method.restart(state, varying(8)))


SEQUENCES = [PolynomialTolerance(0.5, 0.6), GeometricTolerance(0.1, 0.98)]


def inexact_problem(name: str):
    problem = PROBLEMS[name]()
    return problem, SampledGradient(20, seed=1)


@pytest.mark.parametrize("tolerance", SEQUENCES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("solver", ["proximal_gradient", "accelerated", ProximalGradient(step="group")], ids=str)
@pytest.mark.parametrize(("name", "kind"), [("lasso", RAMDA), ("group-lasso", RAMDA), ("group-lasso", RMDA)])
def test_inexact_solutions_meet_their_tolerances(name, kind, solver, tolerance):
    """Both halves of (7) at every step, evaluated here from Q itself in extended precision."""
    problem, gradients = inexact_problem(name)
    schedule = Schedule(0.05, averaging=0.3, tolerance=tolerance)
    method = kind(problem.regularizer, solver=solver)
    state, slack = method.init(problem.initial), 0
    for t in range(1, 41):
        before = state.w
        state, solution = method.step(state, gradients(problem, state.query, t), schedule.at(t))
        assert solution.status == "solved" and solution.point is state.w_hat
        assert solution.tolerance == tolerance(t)
        assert solution.residual == float(method.subproblem(state).residual(state.w_hat)) <= tolerance(t)
        assert solution.descent is True
        assert plain_objective(state, problem.regularizer, state.w_hat) <= plain_objective(
            state, problem.regularizer, before
        ) * (1 + 1e-15)
        slack += solution.residual > 1e-3 * tolerance(t)
    # One step solves a problem whose metric is constant over each piece; the others end somewhere below eps_t.
    one_step_is_exact = kind is RMDA or (name == "lasso" and isinstance(solver, ProximalGradient))
    assert slack == 0 if one_step_is_exact else slack > 5


def plain_objective(state, psi, x) -> np.longdouble:
    """Q(x), in extended precision, from (4)."""
    wide = np.longdouble
    offset = x.astype(wide) - state.anchor
    smooth = np.sum(state.grad_sum * x.astype(wide)) + np.sum(state.metric * offset**2) / 2
    lam = wide(psi.weight)
    if isinstance(psi, L1):
        penalty = lam * np.sum(np.abs(x.astype(wide)))
    else:
        penalty = lam * np.sqrt(wide(x.shape[1])) * np.sum(np.sqrt(np.sum(x.astype(wide) ** 2, axis=1)))
    return smooth + wide(state.weight_sum) * penalty


def test_prox_gen_reports_its_inexact_solutions():
    problem, gradients = inexact_problem("lasso")
    tolerance = PolynomialTolerance(0.02)
    method = ProxGen(problem.regularizer, solver="proximal_gradient")
    schedule = Schedule(0.01, tolerance=tolerance)
    state = method.init(problem.initial)
    for t in range(1, 31):
        before = state.w
        state, solution = method.step(state, gradients(problem, state.query, t), schedule.at(t))
        m_hat = state.momentum / (1 - 0.9**t)
        metric = np.sqrt(state.second_moment / (1 - 0.999**t)) + 1e-8
        own = Subproblem(before, 0.01 * m_hat, metric, 0.01, problem.regularizer)
        assert float(own.residual(state.w)) == pytest.approx(solution.residual, rel=1e-6, abs=1e-12)
        assert solution.residual <= tolerance(t)


def test_inexact_trajectories_approach_the_exact_one():
    problem, gradients = inexact_problem("group-lasso")
    exact = run(problem, RAMDA(problem.regularizer), Schedule(0.05), 50, gradients=gradients).state.w
    gaps = []
    for initial in (1e-1, 1e-4, 1e-7):
        schedule = Schedule(0.05, tolerance=PolynomialTolerance(initial))
        method = RAMDA(problem.regularizer, solver="accelerated")
        gaps.append(np.linalg.norm(run(problem, method, schedule, 50, gradients=gradients).state.w - exact))
    assert gaps[1] < 1e-2 * gaps[0] and gaps[2] < 1e-2 * gaps[1]


def test_tolerance_of_the_default_and_of_zero():
    """Without a sequence the record shows the tolerance `solve` chose; a tolerance of 0 is meant as such."""
    problem = low_rank()
    state, solution = one_step(RAMDA(problem.regularizer), problem, Settings(0.01))
    assert solution.status == "solved" and 0 < solution.residual <= solution.tolerance
    assert solution.tolerance == RAMDA(problem.regularizer).subproblem(state).default_tolerance()
    _, solution = one_step(RAMDA(problem.regularizer, max_iter=30), problem, Settings(0.01, tolerance=0.0))
    assert (solution.status, solution.tolerance, solution.iterations) == ("max_iter", 0.0, 30)


def one_step(method, problem, settings):
    state = method.init(problem.initial)
    return method.step(state, problem.gradient(state.query), settings)


def test_an_inner_solution_that_stopped_early_says_so():
    problem, gradients = inexact_problem("group-lasso")
    schedule = Schedule(0.05, tolerance=PolynomialTolerance(1e-9))
    method = RAMDA(problem.regularizer, solver="proximal_gradient", max_iter=2)
    result = run(problem, method, schedule, 20, gradients=gradients)
    found = inexactness(result.record)
    assert found.violations == 20 and found.worst_ratio > 1
    assert (found.iterations == 2).all()
    assert found.ascents == 0  # proximal gradient steps never raise Q


def test_an_ascent_is_seen_even_where_the_tolerance_failed():
    """A solver that returns a far-off point raises Q; the record must know although the residual failed too."""

    def away(problem, start, tolerance, max_iter):
        from ramda_theory.subproblem.problem import Candidate

        return Candidate(start + 100.0, 1)

    problem = lasso()
    method = RAMDA(problem.regularizer, solver=away)
    record = run(problem, method, Schedule(0.05, tolerance=ConstantTolerance(1e-3)), 3).record
    found = inexactness(record)
    assert (found.ascents, found.violations) == (3, 3)


def test_methods_without_an_exact_subproblem_choose_a_solver():
    problem = low_rank()
    state, solution = one_step(RAMDA(problem.regularizer), problem, Settings(0.01))
    assert solution.status == "solved"
    assert solution.structure == problem.regularizer.structure(state.w_hat)
    psi = GroupMCP(0.01, gamma=1.0, dims=(1,))
    strong, weak = Settings(1e-6, eps=1.0), Settings(10.0, eps=1e-6)
    other = group_lasso()
    for settings in (strong, weak):  # diag > scale/gamma, and not
        assert one_step(RAMDA(psi), other, settings)[1] is None  # exact


def test_rmda_agrees_with_the_general_solvers():
    psi = GroupLasso(0.3, dims=(1,))
    for solver in ("exact", Accelerated(), "newton_raphson"):
        for plain, general in zip(
            steps_of(RMDA(psi), NUMPY64), steps_of(RMDA(psi, solver=solver), NUMPY64), strict=True
        ):
            np.testing.assert_allclose(general.w_hat, plain.w_hat, rtol=0, atol=1e-9)
