"""The frame of the paper checks, and the checks of Theorems 1 and 4, Tables 1 and 2 and the slips."""

import json
import math

import numpy as np
import pytest

from paper_checks import __main__ as command
from paper_checks import all_checks, inner_iterations, slips, table_1, table_2, theorem_1, theorem_4
from paper_checks.check import SECTIONS, Outcome, check
from paper_checks.subproblems import (
    CONVEX,
    FORMS,
    GROUP,
    LASSO,
    NONCONVEX,
    SHAPE,
    nearly_flat,
    planted,
    slowest_direction,
)
from ramda_theory.diagnostics import Rate
from ramda_theory.problems import lasso
from ramda_theory.subproblem import ProximalGradient, solve

FIELDS = {"id", "claim", "kind", "measured", "criterion", "verdict", "expected"}


def made(id, outcome, expected="holds"):
    """A check that returns ``outcome``, or raises it."""

    @check(id, claim="a claim", kind="tight", criterion="a criterion", expected=expected)
    def measure(quick):
        """Problem: a. Claim: b. Algorithm: c. Theorem: d. Reference: e. Failure would mean: f."""
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return measure


def run_command(monkeypatch, tmp_path, checks, *arguments):
    monkeypatch.setattr(command, "all_checks", lambda: checks)
    code = command.main([*arguments, "--out", str(tmp_path)])
    return code, json.loads((tmp_path / "paper_checks.json").read_text())


# -- the frame ---------------------------------------------------------------------------------------------------------


def test_every_check_says_what_it_is():
    checks = all_checks()
    assert len({item.id for item in checks}) == len(checks) > 20
    for item in checks:
        text = item.measure.__doc__
        places = [text.index(f"{section}:") for section in SECTIONS]
        assert places == sorted(places), item.id
        assert item.kind in ("tight", "upper bound", "lower bound", "qualitative")
        assert item.expected in ("holds", "fails", "not decided")
        assert item.claim and item.criterion
        named = item.fault.startswith(("the claim: ", "the setting: ", "the method: "))
        assert named if item.expected == "fails" else not item.fault, item.id


def test_the_table_of_verdicts_says_what_is_at_fault():
    lines = (command.README).read_text(encoding="utf-8").splitlines()
    for item in all_checks():
        assert (f"- `{item.id}`: {item.fault}" in lines) == (item.expected == "fails"), item.id


def test_a_docstring_out_of_order_is_refused():
    with pytest.raises(ValueError, match="sections Problem, Claim, Algorithm"):

        @check("x", claim="", kind="tight", criterion="")
        def measure(quick):
            """Claim: b. Problem: a. Algorithm: c. Theorem: d. Reference: e. Failure would mean: f."""


def test_results_are_written_with_their_fields(monkeypatch, tmp_path):
    outcome = Outcome("holds", {"value": np.float64(2.0), "trace": np.array([1, 2]), "none": math.nan}, "two is two")
    code, results = run_command(monkeypatch, tmp_path, [made("one", outcome)])
    assert code == 0
    assert set(results[0]) >= FIELDS
    assert results[0]["id"] == "one" and results[0]["verdict"] == results[0]["expected"] == "holds"
    assert results[0]["measured"] == {"value": 2.0, "trace": [1, 2], "none": None}


def test_an_error_is_a_verdict_and_does_not_stop_the_rest(monkeypatch, tmp_path):
    checks = [made("bad", ValueError("no luck")), made("good", Outcome("holds", {}, "fine"))]
    code, results = run_command(monkeypatch, tmp_path, checks)
    assert code == 1
    assert [entry["verdict"] for entry in results] == ["error", "holds"]
    assert "no luck" in results[0]["reason"]


@pytest.mark.parametrize(
    ("verdict", "expected", "code"), [("fails", "fails", 0), ("fails", "holds", 1), ("holds", "fails", 1)]
)
def test_the_exit_code_tells_surprises(monkeypatch, tmp_path, verdict, expected, code):
    assert run_command(monkeypatch, tmp_path, [made("one", Outcome(verdict, {}, ""), expected)])[0] == code


def test_names_choose_checks_and_unknown_ones_exit_with_2(monkeypatch, tmp_path, capsys):
    checks = [made("theorem_1_a", Outcome("holds", {}, "")), made("table_1", Outcome("holds", {}, ""))]
    _, results = run_command(monkeypatch, tmp_path, checks, "theorem")
    assert [entry["id"] for entry in results] == ["theorem_1_a"]
    with pytest.raises(SystemExit) as stop:
        command.main(["theorem_9"])
    assert stop.value.code == 2 and "theorem_9" in capsys.readouterr().err


# -- subproblems and Algorithm 2 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CONVEX)
def test_planted_subproblems_have_their_solution_and_condition(name, form):
    problem, start, solution = planted(CONVEX[name], 1e3, form, seed=3)
    assert float(problem.residual(solution)) <= 1e-14 * problem.magnitude
    assert problem.metric.max() / problem.metric.min() == pytest.approx(1e3)
    structure = problem.regularizer.structure(solution)
    assert structure.count == {"l1": 12, "group LASSO": 3, "nuclear norm": 2}[name]
    assert float(problem.residual(start)) > 1e-3 * float(problem.metric.min())


def test_a_spread_inside_groups():
    metric = planted(GROUP, 1e4, "(4)", 0, within=10.0)[0].metric
    assert metric.max() / metric.min() == pytest.approx(1e4)
    assert metric.max(axis=1) / metric.min(axis=1) == pytest.approx(np.full(SHAPE[0], 10.0))


@pytest.mark.parametrize("name", CONVEX)
def test_the_slow_instance_contracts_by_exactly_the_predicted_rate(name):
    problem, start, solution = slowest_direction(planted(CONVEX[name], 50.0, "(6)", 0)[0])
    assert float(problem.residual(solution)) <= 1e-15 * problem.magnitude
    errors = [np.linalg.norm(z - solution) for z, _ in [next(inner_iterations.steps(problem, start))]]
    assert errors[0] / np.linalg.norm(start - solution) == pytest.approx(1 - 1 / 50, rel=1e-12)
    assert theorem_1.predicted_slope(50.0) == pytest.approx(-1 / math.log(1 - 1 / 50))
    assert theorem_1.predicted_slope(1.0) == 0.0


@pytest.mark.parametrize("psi", [*CONVEX.values(), *NONCONVEX.values()], ids=repr)
def test_the_transcription_of_algorithm_2_counts_like_the_solver(psi):
    problem, start, _ = planted(psi, 30.0, "(6)", seed=1)
    tolerances = float(problem.residual(start)) * 10.0 ** -np.array([1.0, 3.0, 5.0])
    counted = inner_iterations.first_hits(inner_iterations.residuals(problem, start), tolerances, 10**5)
    solved = [solve(problem, ProximalGradient(), start=start, tolerance=float(eps)).iterations for eps in tolerances]
    assert counted.tolist() == solved and counted[0] > 1


@pytest.mark.parametrize("step", ["global", "group"])
@pytest.mark.parametrize("psi", [LASSO, GROUP], ids=repr)
def test_the_compiled_loop_counts_like_the_solver(psi, step):
    problem, start, _ = planted(psi, 30.0, "(4)", seed=2)
    tolerances = float(problem.residual(start)) * 10.0 ** -np.array([1.0, 3.0, 5.0])
    solver = ProximalGradient(step=step)
    solved = [solve(problem, solver, start=start, tolerance=float(eps)).iterations for eps in tolerances]
    assert inner_iterations.grouped_hits(problem, start, tolerances, 10**5, step).tolist() == solved


def test_hits_beyond_the_limit_are_the_limit():
    assert inner_iterations.first_hits(iter([4.0, 2.0, 1.0]), np.array([3.0, 2.0, 0.5]), 3).tolist() == [2, 2, 3]


def test_nearly_flat_is_well_conditioned_and_weakly_curved():
    psi = NONCONVEX["MCP"]
    problem, start = nearly_flat(psi, 0)
    assert problem.metric.max() / problem.metric.min() < 2.001
    curvature = problem.metric - problem.weight_sum / psi.gamma
    assert curvature.min() == pytest.approx(1e-4) and curvature.max() == pytest.approx(1.0)
    assert np.all((start > 0) & (start < psi.gamma * psi.weight))  # on the curved branch


# -- verdicts ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(theorem_1, "full_or_quick", lambda quick: ((1.0, 20.0), (20.0,), 0))


def test_theorem_1_verdicts(small):
    assert theorem_1.convex.measure(True).verdict == theorem_1.tight.measure(True).verdict == "holds"


@pytest.mark.parametrize(("factor", "convex"), [(0.4, "fails"), (2.5, "holds")])
def test_theorem_1_notices_a_wrong_prediction(small, monkeypatch, factor, convex):
    right = theorem_1.predicted_slope
    monkeypatch.setattr(theorem_1, "predicted_slope", lambda condition: factor * right(condition))
    assert theorem_1.convex.measure(True).verdict == convex  # an upper bound may be too large
    assert theorem_1.tight.measure(True).verdict == "fails"


@pytest.mark.parametrize(("power", "verdict"), [(1.5, "holds"), (2.5, "fails")])
def test_theorem_1_of_nonconvex_psi_is_judged_by_the_slope(monkeypatch, power, verdict):
    monkeypatch.setattr(theorem_1, "first_hits", lambda r, eps, limit: 2 * (eps[0] / eps) ** power)
    monkeypatch.setattr(theorem_1, "NONCONVEX_LIMIT", 1e30)
    assert theorem_1.nonconvex.measure(True).verdict == verdict


def test_theorem_4_runs_stay_below_the_bound_and_broken_ones_do_not():
    problem = lasso()
    good = theorem_4.trajectory(problem, 60, 1.0, lambda t: 4.0)
    bound = theorem_4.descent_bound(problem, good)
    assert np.all(good.average <= bound)
    assert good.average[-1] == pytest.approx(np.mean(good.distance_sq))
    assert not np.all(
        theorem_4.Trajectory(1e4 * good.distance_sq, *[good.gradient_error_sq, good.tolerance]).average <= bound
    )


def test_the_laziest_solution_is_the_start_or_meets_the_tolerance():
    problem, start, _ = planted(LASSO, 10.0, "(6)", 0)
    residual = float(problem.residual(start))
    assert theorem_4.laziest(problem, start, residual, 100).point is start
    other = theorem_4.laziest(problem, start, 0.9 * residual, 100)
    assert other.iterations >= 1 and float(problem.residual(other.point)) <= 0.9 * residual


def test_summability_is_noticed_to_matter(monkeypatch):
    trajectory = theorem_4.trajectory
    assert theorem_4.summability.measure(True).verdict == "holds"
    # Runs that are never lazy do not lose the rate: then the claim, that they do, fails.
    monkeypatch.setattr(theorem_4, "trajectory", lambda problem, steps, power, **_: trajectory(problem, steps, 1.0))
    assert theorem_4.summability.measure(True).verdict == "fails"


def test_condition_8_is_judged_by_the_exponent(monkeypatch):
    monkeypatch.setattr(table_1, "fit_rate", lambda t, values, window: Rate(-0.6, 0.0, window, len(t)))
    assert table_1.condition_8.measure(True).verdict == "holds"
    monkeypatch.setattr(table_1, "fit_rate", lambda t, values, window: Rate(-0.4, 0.0, window, len(t)))
    assert table_1.condition_8.measure(True).verdict == "fails"


def fake_rows(**quality):
    """Rows of Table 1 that agree, but for what ``quality`` says of early stopping."""
    good = {"objective": 1.0, "accuracy": 0.9, "zero groups": 0.5, "ms per step": 1.0, "inner iterations": 1.0}
    changes = {"early": quality, "none": {"inner iterations": 5.0}, "exact": {}}
    return lambda workload, method, stopping, seeds, steps: good | changes[stopping]


@pytest.mark.parametrize(
    ("quality", "verdict"),
    [
        ({}, "holds"),
        ({"objective": 1.01}, "fails"),
        ({"accuracy": 0.89}, "fails"),
        ({"zero groups": 0.45}, "fails"),
        ({"inner iterations": 4.0}, "fails"),
    ],
)
def test_table_1_is_judged_by_each_part_of_its_criterion(monkeypatch, quality, verdict):
    monkeypatch.setattr(table_1, "row", fake_rows(**quality))
    assert table_1.quality.measure(True).verdict == verdict


def test_table_2_subproblems_come_from_training_and_are_solved_as_said():
    subproblems = table_2.training_subproblems("ProxGen", 8)
    assert len(subproblems) == 3 * (len(table_2.LAYERS) - 1)
    for problem, start in subproblems:
        assert np.array_equal(problem.anchor, start)  # (6)
        assert table_2.timed(problem, start, "exact", 1, 1)["residual"] < 1e-10
    assert max(table_2.condition_number(problem) for problem, _ in subproblems) > 1e3


@pytest.mark.parametrize(
    ("newton", "pg", "ours", "verdicts"), [(2, 4, 1, ("fails", "holds")), (4, 2, 3, ("holds", "fails"))]
)
def test_table_2_is_judged_by_the_times(monkeypatch, newton, pg, ours, verdicts):
    times = dict(zip(table_2.SOLVERS, (newton, pg, ours), strict=True))
    rows = {
        (name, label): [{"ms": ms, "iterations": 3, "residual": 1e-13}]
        for name in table_2.SETTINGS
        for label, ms in times.items()
    }
    monkeypatch.setattr(table_2, "measurements", lambda quick: rows)
    monkeypatch.setattr(table_2, "training_subproblems", lambda name, steps: (planted(GROUP, 10.0, "(6)", 0)[:2],))
    assert (table_2.faster.measure(True).verdict, table_2.exact.measure(True).verdict) == verdicts


@pytest.mark.parametrize(
    "item", [slips.rates, slips.missing_step, slips.scaling, slips.index, slips.start_point], ids=lambda c: c.id
)
def test_cheap_slips_are_real(item):
    assert item.measure(True).verdict == "holds"


def test_a_slip_that_is_none_fails(monkeypatch):
    monkeypatch.setattr(slips, "grouped_hits", lambda *_: np.array([10, 100, 1000, 10_000]))
    assert slips.rates.measure(True).verdict == "fails"


def test_all_slips_are_there():
    assert [item.id for item in slips.CHECKS] == [f"slip_{k:02d}" for k in range(1, 12)]
