"""Medians over seeds with exact intervals, against SciPy's and against sampling; paired differences."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import quantile_test

from ramda_theory.diagnostics import compare, median_interval
from ramda_theory.diagnostics.record import Record


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=40), st.floats(0.05, 0.99))
def test_the_interval_is_as_wide_as_the_binomial_tails_allow(values, level):
    found = median_interval(values, level)
    assert found.low <= found.median <= found.high
    assert found.median == np.median(values)
    limits = quantile_test(values, q=0, p=0.5).confidence_interval(level)
    if np.isfinite(limits.low) and np.isfinite(limits.high):
        assert (found.low, found.high) == (limits.low, limits.high)
        assert found.coverage >= level - 1e-12
    else:  # too few values: the widest there is, and it says so
        assert (found.low, found.high) == (min(values), max(values))


@pytest.mark.parametrize(("runs", "level"), [(5, 0.9), (9, 0.95), (20, 0.8)])
def test_the_coverage_is_kept_by_skewed_samples(runs, level):
    draws = np.random.default_rng(0).exponential(size=(4000, runs))
    inside = [found.low <= np.log(2) <= found.high for found in (median_interval(row, level) for row in draws)]
    assert np.mean(inside) == pytest.approx(median_interval(draws[0], level).coverage, abs=0.02)


def test_runs_that_never_got_there_count_as_late():
    found = median_interval([300, None, 280, None, None])
    assert (found.median, found.low, found.high) == (np.inf, 280, np.inf)
    assert median_interval([1.0, None, None, None]).median == np.inf
    assert found.coverage == 1 - 2 / 2**5


def test_differences_are_taken_seed_by_seed():
    easy = {"A": {0: 100, 1: 200, 2: 300, 3: None}, "B": {3: None, 2: 290, 1: 190, 0: 90}, "C": dict.fromkeys(range(4))}
    found = compare(easy)
    a, b, c = found.rows
    assert a.difference is None and found.baseline == "A"
    assert (b.better, b.equal, b.worse) == (3, 1, 0)
    assert (b.difference.median, b.difference.low, b.difference.high) == (-10, -10, 0)
    assert (c.better, c.equal, c.worse) == (0, 1, 3)
    assert compare(easy, baseline="B").rows[0].worse == 3
    frame = found.to_pandas()
    assert frame["method"].tolist() == ["A", "B", "C"] and frame["difference.median"].tolist()[1] == -10
    assert "87.5% only" in str(found) and "87.5%" not in compare(easy, level=0.8).table()


@pytest.mark.parametrize(
    ("runs", "keywords", "message"),
    [
        ({}, {}, "at least one method"),
        ({"A": {0: 1}}, {"baseline": "B"}, "baseline must be one of"),
        ({"A": {0: 1}, "B": {1: 1}}, {}, "the same seeds"),
        ({"A": {0: float("nan")}}, {}, "numbers or None"),
        ({"A": {}}, {}, "at least one"),
        ({"A": {0: 1}}, {"level": 1.0}, r"level must be in \(0, 1\)"),
        ({"A": {0: 1}}, {"level": 0.0}, "level"),
    ],
)
def test_what_is_refused(runs, keywords, message):
    with pytest.raises(ValueError, match=message):
        compare(runs, **keywords)


def test_a_record_as_a_data_frame():
    record = Record()
    record.metrics.append(step=1, objective=2.0)
    record.metrics.append(step=2, objective=1.5)
    frame = record.metrics.to_pandas()
    assert frame.columns.tolist() == ["step", "objective"] and frame["objective"].tolist() == [2.0, 1.5]
