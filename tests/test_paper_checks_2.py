"""The checks of Theorems 2 and 3, of restarts and of variance reduction: their parts, and the cheapest ones quickly."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest

from paper_checks import MODULES
from paper_checks.restarts import Restarted, share_kept
from paper_checks.structure_runs import identified, planted_groups, planted_lasso, planted_rank, right_from, spells
from paper_checks.theorem_2_limits import Lazy, convergent, falls, follow, mean_table
from paper_checks.theorem_3_iterates import FarthestAllowed, Moved
from paper_checks.theorem_3_mcp import Followed, least_convexity, planted_mcp
from ramda_theory.diagnostics import Rate, Table
from ramda_theory.methods import RAMDA, NoisyGradient
from ramda_theory.problems import lasso
from ramda_theory.subproblem import Subproblem, solve
from ramda_theory.subproblem.solve import judge

OWN = (
    "theorem_2",
    "theorem_2_conditions",
    "theorem_3",
    "theorem_3_iterates",
    "theorem_3_mcp",
    "restarts",
    "variance_reduction",
)


def state_after(problem, steps, schedule=None, sigma=0.05):
    """The state of an exactly solved run, written as a loop."""
    method, schedule = RAMDA(problem.regularizer), schedule or convergent()
    gradients = NoisyGradient(sigma, 0)
    state = method.init(problem.initial)
    for t in range(1, steps + 1):
        state, _ = method.step(state, gradients(problem, state.query, t), schedule.at(t))
    return method, state


def test_modules_are_registered_in_the_papers_order():
    places = [MODULES.index(name) for name in OWN]
    assert places == sorted(places)
    for name in OWN:
        checks = importlib.import_module(f"paper_checks.{name}").CHECKS
        assert checks and all(item.id.startswith(name.split("_conditions")[0].split("_iterates")[0]) for item in checks)


# -- the runs of Theorem 2 --------------------------------------------------------------------------------------------


def test_convergent_schedule_has_the_exponents_it_states():
    schedule = convergent()
    alpha = {n: math.fsum(schedule.at(t).lr * math.sqrt(t) for t in range(1, n + 1)) for n in (20_000, 40_000)}
    # alpha_t = (8/3) t^(3/8) + zeta(5/8) + o(1), and so with the constant removed the ratio is that of the powers
    constant = alpha[20_000] - 8 / 3 * 20_000 ** (3 / 8)
    assert alpha[40_000] - constant == pytest.approx(8 / 3 * 40_000 ** (3 / 8), rel=1e-4)
    assert [schedule.at(t).averaging for t in (1, 4, 8)] == [1.0, 1.0, 0.5]


def test_follow_measures_what_a_plain_loop_measures():
    problem, sigma, steps = lasso(), 0.1, 40
    table = follow(problem, RAMDA(problem.regularizer), convergent(), NoisyGradient(sigma, 0), steps)
    alpha, w, v, u = 0.0, np.zeros(50), np.zeros(50), np.zeros(50)
    moves, last = [], 0
    lam = problem.regularizer.weight
    for t in range(1, steps + 1):
        g = problem.gradient(w) + sigma * np.random.default_rng((0, t)).standard_normal(50)
        s = t**-1.125 * math.sqrt(t)
        alpha, v, u = alpha + s, v + s * g, u + s * g * g
        p = np.cbrt(u) + 1e-6
        w_hat = -np.sign(v) * np.maximum(np.abs(v) - alpha * lam, 0.0) / p
        c = min(1.0, 4.0 / t)
        w_next = (1 - c) * w + c * w_hat
        moves.append(np.linalg.norm(w_next - w) * alpha / s)
        w = w_next
        row = np.flatnonzero(table["step"] == t)
        if len(row):
            here = problem.gradient(w)
            expected = {
                "alpha": alpha,
                "squares_error": np.linalg.norm(u / alpha - here**2 - sigma**2),
                "gradient_error": np.linalg.norm(v / alpha - here),
                "metric_norm": p.max() / alpha,
                "metric_least": p.min() / alpha,
                "movement": math.sqrt(np.mean(np.square(moves[last:]))),
            }
            for name, value in expected.items():
                assert table[name][row[0]] == pytest.approx(value, rel=1e-9), (name, t)
            last = t
    assert last == steps


def test_mean_table_is_a_root_mean_square():
    tables = [Table({"step": [1.0, 2.0], "x": [3.0, 0.0]}), Table({"step": [1.0, 2.0], "x": [4.0, 2.0]})]
    mean = mean_table(tables)
    assert mean["step"].tolist() == [1.0, 2.0]
    assert mean["x"].tolist() == pytest.approx([math.sqrt(12.5), math.sqrt(2.0)])


def test_falls_needs_the_whole_interval_below_zero():
    assert falls(Rate(-0.2, 0.1, (1, 2), 9))
    assert not falls(Rate(-0.2, 0.3, (1, 2), 9))


def test_lazy_meets_the_condition_and_makes_no_progress_while_it_may():
    problem = lasso()
    method, state = state_after(problem, 60)
    subproblem, exact = method.subproblem(state), solve(method.subproblem(state)).point
    start = np.where(exact == 0, 1e-3, 1.001 * exact)
    stays = Lazy()(subproblem, start, 1e3, 1)
    np.testing.assert_array_equal(stays.point, np.where(exact == 0, 0.0, start))
    assert judge(subproblem, stays, 1e3, start).status == "solved"
    moves = Lazy()(subproblem, start, 1e-9, 1)
    np.testing.assert_allclose(moves.point, exact, rtol=1e-12)


# -- structure --------------------------------------------------------------------------------------------------------


def test_right_from_is_the_step_after_the_last_wrong_one():
    assert right_from(np.array([2, 0, 1, 0, 0])) == 4
    assert right_from(np.array([0, 0])) == 1
    assert right_from(np.array([0, 3])) == 3  # beyond the end
    assert identified(np.array([1, 0, 0, 0])) and not identified(np.array([0, 0, 1, 0]))


def test_spells_are_the_maximal_right_stretches():
    assert list(spells(np.array([0, 1, 0, 0, 5, 0]))) == [(1, 1), (3, 4), (6, 6)]
    assert list(spells(np.array([1, 2]))) == []


def test_restart_counts_only_where_the_structure_was_settled():
    wrong = np.zeros(900, dtype=int)
    wrong[95] = 1  # step 96, within the 20 steps before the restart at 100: not settled
    wrong[330:340] = 1  # lost after the restart at 300
    entry = Restarted("l1", 0.5, 0, wrong, (100, 300, 600))
    assert entry.kept == [False, True]
    assert share_kept([entry, entry]) == (2, 4)


@pytest.mark.parametrize("make", [planted_lasso, planted_groups, planted_rank])
def test_tiny_ambient_errors_break_the_structure_and_the_condition(make):
    problem = make(0.5, 0)
    method, state = state_after(problem, 30)
    subproblem, exact = method.subproblem(state), solve(method.subproblem(state))
    moved = Moved("ambient")(subproblem, state.w, 1e-9, 1).point
    assert np.linalg.norm(moved - exact.point) == pytest.approx(1e-9, rel=1e-5)
    assert problem.regularizer.structure(moved) != exact.structure
    tolerance = 1e-3 * state.weight_sum * problem.regularizer.weight
    assert subproblem.residual(moved) > 100 * tolerance
    allowed = FarthestAllowed("ambient")(subproblem, state.w, tolerance, 1)
    assert judge(subproblem, allowed, tolerance, state.w).status == "solved"
    np.testing.assert_allclose(allowed.point, exact.point, atol=1e-13)  # rounding aside, not moved at all
    assert problem.regularizer.structure(allowed.point) == exact.structure
    along = FarthestAllowed("manifold")(subproblem, exact.point + 1.0, tolerance, 1)
    judged = judge(subproblem, along, tolerance)
    assert judged.structure == exact.structure
    assert 0.9 * tolerance < judged.residual <= tolerance


def test_mcp_thresholds_are_those_of_the_exact_subproblem():
    problem = planted_mcp(0)
    psi, solution = problem.regularizer, problem.solution()
    pattern, g, alpha = solution.structure.pattern, problem.gradient(solution.point), 7.0

    def pattern_at(convexity):
        # W^0 = w* and V/alpha = grad f(w*): w* is stationary for (4) whatever P is
        metric = convexity * alpha / psi.gamma
        return psi.structure(solve(Subproblem(solution.point, alpha * g, metric, alpha, psi)).point).pattern

    least = np.maximum(least_convexity(problem), 1e-6)
    np.testing.assert_array_equal(pattern_at(1.001 * least), pattern)
    for i in np.flatnonzero(least > 1e-6):
        below = 1.001 * least
        below[i] = 0.999 * least[i]
        assert np.flatnonzero(pattern_at(below) != pattern).tolist() == [i]


def test_followed_reports_the_last_right_step():
    run = Followed(np.array([1, 0, 0, 2, 1]), 5, 4)
    assert (run.last_right, run.predicted) == (3, 4)
    assert Followed(np.array([1, 2]), 3, 3).last_right == 0


# -- whole checks, quickly --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("theorem_2_conditions", "theorem_2_noise"),
        ("theorem_3", "theorem_3_l1"),
    ],
)
def test_quick_check_gives_its_expected_verdict(module, name, tmp_path):
    (item,) = [item for item in importlib.import_module(f"paper_checks.{module}").CHECKS if item.id == name]
    outcome, files = item.run(True, tmp_path)
    assert outcome.verdict == item.expected
    assert outcome.reason and outcome.measured
    assert {path.suffix for path in files} == {".png"}
    assert all(path.stat().st_size > 1000 for path in files)
    for figure in outcome.figures.values():
        assert all(axes.get_xlabel() for axes in figure.axes) and figure.axes[0].get_ylabel()
