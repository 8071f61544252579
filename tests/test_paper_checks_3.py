"""The checks of Tables 7 and 8 and of statements: how they judge, settings, and small runs against plain counting."""

import numpy as np
import pytest

from paper_checks import low_rank_runs, online, settled, table_7, table_8
from paper_checks.low_rank_runs import Trained
from paper_checks.paper_tables import LOGISTIC_REGRESSION, NUCLEAR_NORM, OURS, beside, leads, means, summary

GOOD_7 = {
    "accuracy": 95.0,
    "sparsity": 40.0,
    "wrong pixels": 3.0,
    "sparsity of What": 40.0,
    "wrong pixels of What": 3.0,
    "gap": 1e-3,
}
GOOD_8 = {"accuracy": 95.0, "low-rank level": 80.0, "low-rank level of What": 80.0}


def fake_table(good, names, ours=None, **changes):
    """Rows of equal methods, but RMDA and RAMDA with ``ours``, and every method with its ``changes``."""
    rows = {name: good | (ours if ours and name in ("RMDA", "RAMDA") else {}) for name in names}
    for name, change in changes.items():
        rows[name] = rows[name] | change
    return {name: summary([row]) for name, row in rows.items()}


# -- judging -----------------------------------------------------------------------------------------------------------


def test_summary_is_mean_and_deviation():
    found = summary([{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 2.0}])
    assert found["mean"] == {"a": 2.0, "b": 2.0} and found["std"] == {"a": 1.0, "b": 0.0} and len(found["runs"]) == 2


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "holds"),
        ({"RAMDA": {"accuracy": 94.5}}, "holds"),
        ({"RAMDA": {"accuracy": 94.4}}, "fails"),
        ({"RMDA": {"accuracy": 94.4}}, "fails"),
        ({"ProxSSI": {"accuracy": 95.6}}, "fails"),
        ({"RMDA": {"sparsity": 39.9}}, "fails"),
        ({"RAMDA": {"sparsity": 39.9}}, "fails"),
        ({"ProxGen": {"sparsity": 40.1}}, "fails"),
        ({"RMDA": {"sparsity": 60.0}}, "holds"),  # the other one needs to beat the rivals only
    ],
)
def test_table_7_is_judged_by_each_part_of_its_criterion(monkeypatch, changes, verdict):
    monkeypatch.setattr(table_7, "table", lambda quick: fake_table(GOOD_7, table_7.METHODS, **changes))
    monkeypatch.setattr(table_7, "shown_figure", lambda quick: None)
    assert table_7.sparsity.measure(True).verdict == verdict


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "holds"),
        ({"RMDA": {"wrong pixels": 3.0}}, "fails"),
        ({"RAMDA": {"wrong pixels of What": 3.0}}, "fails"),
        ({"ProxSGD": {"wrong pixels": 2.0}}, "fails"),
    ],
)
def test_the_minimiser_of_table_7_is_judged_by_each_wrong_pixel(monkeypatch, changes, verdict):
    better = {"wrong pixels": 2.0, "wrong pixels of What": 2.0}
    monkeypatch.setattr(table_7, "table", lambda quick: fake_table(GOOD_7, table_7.METHODS, better, **changes))
    assert table_7.minimiser.measure(True).verdict == verdict


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "holds"),
        ({"RAMDA": {"accuracy": 93.9}}, "fails"),
        ({"RMDA": {"accuracy": 93.9}}, "fails"),
        ({"ProxGen": {"accuracy": 96.1}}, "fails"),
        ({"RMDA": {"low-rank level": 79.9}}, "fails"),
        ({"RAMDA": {"low-rank level": 79.9}}, "fails"),
        ({"ProxSGD": {"low-rank level": 80.1}}, "fails"),
    ],
)
def test_table_8_is_judged_by_each_part_of_its_criterion(monkeypatch, changes, verdict):
    rows = fake_table(GOOD_8, table_8.SETTINGS, **changes)
    rows["MSGD"] = summary([{"accuracy": 99.0}])  # without a level it is no rival
    monkeypatch.setattr(table_8, "table", lambda quick: rows)
    monkeypatch.setattr(table_8, "shown_figure", lambda quick: None)
    assert table_8.low_rank.measure(True).verdict == verdict


def test_the_papers_own_figures_meet_the_criteria():
    for paper, level, points in ((LOGISTIC_REGRESSION, "sparsity", 0.5), (NUCLEAR_NORM, "low-rank level", 1.0)):
        rows = {name: summary([row]) for name, row in paper.items()}
        assert leads(rows, level, points)
        best = max(OURS, key=lambda name: paper[name][level])
        assert not leads(rows | {"ProxSGD": rows[best]}, level, points)
    assert means(rows, "low-rank level").keys() == NUCLEAR_NORM.keys() - {"MSGD"}
    assert beside(rows, NUCLEAR_NORM, "low-rank level").startswith("MSGD 90.0 % (paper 90.0); ProxSGD 87.5 %, 78.0 %")


# -- Table 7, run ------------------------------------------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(table_7, "EPOCHS", 5)
    monkeypatch.setattr(table_7, "MILESTONES", (1, 2, 3, 4))
    caches = (table_7.trained, table_7.tuned_lr, table_7.table)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def test_table_7_counts_what_plain_loops_count(short):
    from sklearn.datasets import load_digits

    result = table_7.trained("RAMDA", 0.1, 0, False)
    row = table_7.row(result)
    data = load_digits()
    test = np.random.default_rng(0).permutation(1797)[:500]
    for at, w in (("", result.state.w), (" of What", result.state.w_hat)):
        right = sum(int(np.argmax(data.data[i] / 16 @ w) == data.target[i]) for i in test)
        assert row[f"accuracy{at}"] == pytest.approx(100 * right / 500)
        unused = [not any(pixel) for pixel in w]
        assert row[f"sparsity{at}"] == pytest.approx(100 * sum(unused) / 64)
        exact = [not any(pixel) for pixel in table_7.workload().problem.solution().point]
        assert row[f"wrong pixels{at}"] == sum(a != b for a, b in zip(unused, exact, strict=True))
    assert not np.array_equal(result.state.w, result.state.w_hat)
    assert row["gap"] > 0


def test_methods_of_table_7_use_the_solvers_they_name(short):
    ssi, gen, exact = (table_7.trained(*each).state.w for each in (("ProxSSI", 1e-2, 0, False),
                       ("ProxGen", 1e-2, 0, False), ("ProxGen", 1e-2, 0, True)))  # fmt: skip
    assert np.allclose(ssi, exact, rtol=0, atol=1e-9)  # both solve the subproblem to rounding
    assert 1e-9 < np.max(np.abs(gen - exact)) < 1e-2
    assert len(table_7.trained("ProxGen", 1e-2, 0, False).record.inner) == 50


def test_learning_rates_are_chosen_by_the_objective(short):
    rates = [1e-2, 1e-1, 1.0]
    objectives = [table_7.trained("RAMDA", lr, 0, True).record.metrics["objective_w"][-1] for lr in rates]
    assert table_7.tuned_lr("RAMDA", (1.0, 10.0, 100.0)) == pytest.approx(rates[int(np.argmin(objectives))])


# -- Table 8, run ------------------------------------------------------------------------------------------------------


def test_a_weight_too_large_leaves_rank_zero_and_none_leaves_all():
    nothing = low_rank_runs.trained("ProxSGD", 0.1, 100.0, 0, 3)
    assert nothing.level == nothing.level_hat == 1.0 and nothing.accuracy < 0.2
    assert nothing.levels.tolist() == [1.0] * 3
    plain = low_rank_runs.trained("MSGD", 0.3, 0.0, 0, 3)
    assert plain.level == 0.0 and plain.accuracy == plain.accuracy_hat


def test_levels_are_parts_of_all_singular_values():
    run = low_rank_runs.trained("RMDA", 1.0, 2e-2, 0, 6)
    singular_values = 64 + 32 + 16 + 10
    for level in (run.level, run.level_hat):
        assert 0 < level * singular_values == pytest.approx(round(level * singular_values))
    assert run.level_hat >= run.level  # What is a solution, W an average


def test_settings_are_chosen_by_level_among_the_accurate_ones(monkeypatch):
    def fake(name, lr, weight, seed):
        return Trained(0.9 - 2 * weight, 0.0, 0.0, weight + lr, 0.0, np.zeros(1))

    monkeypatch.setattr(low_rank_runs, "trained", fake)
    assert low_rank_runs.chosen("RAMDA", 0.888) == (1.0, 5e-3)
    assert low_rank_runs.chosen("RAMDA", 0.95) == (0.01, 1e-3)  # none is good enough: the most accurate


def test_figures_show_every_method(short, monkeypatch):
    monkeypatch.setattr(table_7, "SMOOTHED", 1)
    monkeypatch.setattr(table_8, "runs_of", lambda name, quick: [Trained(0.9, 0.9, 0.9, 0.5, 0.5, np.ones(4) / 2)])
    table_8.table.cache_clear()
    for figure, names in (
        (table_7.shown_figure(True), table_7.METHODS),
        (table_8.shown_figure(True), table_8.SETTINGS),
    ):
        left, right = figure.axes
        expected = [name for name in names if name != "MSGD"]
        assert [text.get_text() for text in left.get_yticklabels()] == expected[::-1]
        assert [text.get_text() for text in right.get_legend().get_texts()] == expected
    table_8.table.cache_clear()


# -- statements during a run -----------------------------------------------------------------------------------------


def watched_rows(**changes):
    row = {"problem": "l1, margin 0.2", "seed": 0, "method": "RMDA", "margin": 0.2, "T0": 100, "per_epoch": 10}
    row |= {"statistic": 110, "statistic, wrong": 0, "proof": 50, "proof, wrong": 0}
    return [dict(row) for _ in range(299)] + [row | changes]


@pytest.mark.parametrize(
    ("changes", "statistic", "proof"),
    [
        ({}, "holds", "holds"),
        ({"statistic, wrong": 1}, "fails", "holds"),
        ({"proof": None, "proof, wrong": None}, "holds", "not decided"),
        ({"T0": None}, "holds", "holds"),
    ],
)
def test_statements_are_judged_by_every_part_of_the_criterion(monkeypatch, changes, statistic, proof):
    monkeypatch.setattr(online, "runs", lambda quick: watched_rows(**changes))
    assert [online.judged(False, kind).verdict for kind in ("statistic", "proof")] == [statistic, proof]
    found = online.summary(watched_rows(**changes), "statistic")
    assert found["median time / T0"] == pytest.approx(1.1) and found["before T0"] == 0


def test_late_or_rare_statements_fail(monkeypatch):
    late = [row | {"statistic": 130} for row in watched_rows()]
    rare = [row | {"statistic": None} if i % 4 == 0 else row for i, row in enumerate(watched_rows())]
    for rows in (late, rare):
        monkeypatch.setattr(online, "runs", lambda quick, rows=rows: rows)
        assert online.judged(False, "statistic").verdict == "fails"


# -- settled groups --------------------------------------------------------------------------------------------------


def test_statements_are_compared_with_the_end_of_the_run(monkeypatch):
    monkeypatch.setattr(settled, "EPOCHS", 8)
    monkeypatch.setattr(settled, "EVERY", 2)
    found = settled.watched({"optimizer": "ProxSGD", "model": "mlp", "weight": 1e-3, "milestones": (8,)}, 0)
    assert [row["epoch"] for row in found["rows"]] == [2, 4, 6] and found["batches"] == 3 * 16
    assert all(row["zero"] + row["nonzero"] == 0 for row in found["rows"][:2])
    last = found["rows"][2]
    assert 0 < last["zero"] + last["nonzero"] <= last["groups"] == 576
    assert last["zero, wrong"] <= last["zero"] and last["nonzero, wrong"] <= last["nonzero"]
