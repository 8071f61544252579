"""What is read from runs: identification, inexactness, rates; and records, which save and load."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramda_theory.diagnostics import (
    Record,
    StructureTrace,
    Table,
    changes_per_epoch,
    fit_rate,
    identification,
    inexactness,
)
from ramda_theory.methods import (
    FISTA,
    MADGRAD,
    MDA,
    RAMDA,
    RMDA,
    SampledGradient,
    Schedule,
)
from ramda_theory.problems import digits, group_lasso, lasso, low_rank, mcp
from ramda_theory.run import run
from ramda_theory.structure import GroupSupport, Rank, SignPattern
from ramda_theory.subproblem import ConstantTolerance, PolynomialTolerance

# -- identification -------------------------------------------------------------------------------------------------

RIGHT = GroupSupport(np.array([1, 0, 1, 0], np.int8))
WRONG = GroupSupport(np.array([1, 1, 1, 1], np.int8))


def trace_of(structures) -> StructureTrace:
    trace = StructureTrace()
    for structure in structures:
        trace.append(structure)
    return trace


@pytest.mark.parametrize(
    ("word", "time", "held", "error"),
    [
        ("r", 1, 1, 0),
        ("w", None, 0, 2),
        ("rrrr", 1, 4, 0),
        ("wwrr", 3, 2, 0),
        ("rrww", None, 0, 2),  # found and lost
        ("rrwr", 4, 1, 0),  # lost and found again: the last time counts
        ("wrwrwrrr", 6, 3, 0),
    ],
)
def test_identification_of_constructed_traces(word, time, held, error):
    found = identification(trace_of({"r": RIGHT, "w": WRONG}[letter] for letter in word), RIGHT)
    assert (found.time, found.held_for, found.final_error, found.steps) == (time, held, error, len(word))


@given(wrong=st.lists(st.booleans(), min_size=1, max_size=40))
def test_identification_by_its_definition(wrong):
    """T0 is the least t such that no step from t on is wrong."""
    found = identification(trace_of(WRONG if is_wrong else RIGHT for is_wrong in wrong), RIGHT)
    steps = len(wrong)
    good = [t for t in range(1, steps + 1) if not any(wrong[t - 1 :])]
    assert found.time == (good[0] if good else None)
    assert found.held_for == len(good) == (steps - found.time + 1 if good else 0)


def test_against_the_runs_own_end():
    trace = trace_of([WRONG, RIGHT, WRONG, RIGHT, RIGHT])
    assert identification(trace).time == 4 and identification(trace).final_error == 0
    assert identification(trace_of([RIGHT, WRONG])).time == 2


def test_signs_and_ranks_count():
    """An entry of the wrong sign is wrong; ranks differ by their difference."""
    plus, minus = (SignPattern(np.array([s, 0], np.int8)) for s in (1, -1))
    assert identification(trace_of([minus, plus]), plus).time == 2
    assert identification(trace_of([plus, minus]), plus).final_error == 1
    assert identification(trace_of([Rank(5, 6, 6), Rank(3, 6, 6)]), Rank(2, 6, 6)).final_error == 1


def test_bad_references_are_refused():
    with pytest.raises(ValueError, match="at least one step"):
        identification(StructureTrace(), RIGHT)
    with pytest.raises(TypeError, match="not structures of one kind"):
        identification(trace_of([RIGHT]), SignPattern(RIGHT.pattern))
    with pytest.raises(TypeError, match="not structures of one kind"):
        identification(trace_of([RIGHT]), Rank(2, 3, 3))


def test_changes_per_epoch():
    trace = trace_of([RIGHT, WRONG, WRONG, RIGHT, WRONG, RIGHT, RIGHT])
    assert trace.changes().tolist() == [0, 2, 0, 2, 2, 2, 0]
    assert changes_per_epoch(trace, 3).tolist() == [2, 6, 0]
    assert changes_per_epoch(trace, 7).tolist() == [8]
    assert changes_per_epoch(trace, 100).tolist() == [8]
    assert changes_per_epoch(StructureTrace(), 3).tolist() == []
    with pytest.raises(ValueError, match="steps_per_epoch must be at least 1, got 0"):
        changes_per_epoch(trace, 0)


# -- inexactness ----------------------------------------------------------------------------------------------------


def inner_record(rows) -> Record:
    record = Record()
    for step, (tolerance, residual, descent) in enumerate(rows, start=1):
        record.inner.append(step=step, tolerance=tolerance, residual=residual, iterations=10 * step, descent=descent)
    return record


def test_inexactness_of_constructed_records():
    rows = [
        (1.0, 0.5, True),
        (0.5, 0.5, True),
        (0.25, 0.5, True),
        (0.1, 0.05, False),
        (0.1, 0.3, False),
        (0.1, 0.0, True),
    ]
    found = inexactness(inner_record(rows))
    assert found.worst_ratio == pytest.approx(3.0)
    assert (found.violations, found.ascents) == (3, 2)
    np.testing.assert_allclose(found.sum_of_squares, np.cumsum([1, 0.25, 0.0625, 0.01, 0.01, 0.01]))
    assert found.iterations.tolist() == [10, 20, 30, 40, 50, 60]


def test_inexactness_of_edge_cases():
    assert inexactness(inner_record([(0.0, 0.0, True)])).violations == 0
    assert inexactness(inner_record([(0.0, 0.0, True)])).worst_ratio == 0.0
    assert inexactness(inner_record([(0.0, 1e-300, True)])).worst_ratio == math.inf
    assert inexactness(inner_record([(1.0, math.nan, True)])).violations == 1
    with pytest.raises(ValueError, match="solved exactly"):
        inexactness(Record())


def test_inexactness_of_runs():
    problem = group_lasso()
    tolerance = PolynomialTolerance(0.3, 0.8)
    method = RAMDA(problem.regularizer, solver="proximal_gradient")
    result = run(problem, method, Schedule(0.05, tolerance=tolerance), 60, gradients=SampledGradient(20))
    found = inexactness(result.record)
    assert (found.violations, found.ascents) == (0, 0) and 0 < found.worst_ratio <= 1
    assert (np.diff(found.sum_of_squares) > 0).all()
    assert found.sum_of_squares[-1] < tolerance.sum_of_squares  # (8)
    assert result.record.inner["step"].tolist() == list(range(1, 61))
    constant = run(problem, method, Schedule(0.05, tolerance=ConstantTolerance(0.1)), 60).record
    assert inexactness(constant).sum_of_squares[-1] == pytest.approx(0.6)  # grows without bound: (8) fails
    with pytest.raises(ValueError, match="solved exactly"):
        inexactness(run(problem, RAMDA(problem.regularizer), Schedule(0.05), 5).record)


# -- rates ----------------------------------------------------------------------------------------------------------


@given(exponent=st.floats(-3, 3), factor=st.floats(1e-6, 1e6))
def test_power_laws_are_recovered(exponent, factor):
    steps = np.arange(1, 400, 7)
    rate = fit_rate(steps, factor * steps**exponent)
    assert rate.exponent == pytest.approx(exponent, abs=1e-10)
    assert rate.uncertainty < 1e-8


def test_windows():
    """Two power laws one after the other: the window decides which is found; the default is the late half in log t."""
    steps = np.arange(1, 10001)
    values = np.where(steps <= 100, steps**-2.0, 100**-1.5 * steps**-0.5)
    assert fit_rate(steps, values, (1, 100)).exponent == pytest.approx(-2)
    late = fit_rate(steps, values)
    assert late.exponent == pytest.approx(-0.5, abs=1e-3) and late.window == (100.0, 10000.0)
    assert late.points == 9901
    assert fit_rate(steps, values, (150, 300)).points == 151
    assert -2 < fit_rate(steps, values, (10, 1000)).exponent < -0.5


def test_values_without_a_logarithm_are_left_out():
    steps = np.arange(1, 101)
    values = steps**-1.0
    values[[50, 60, 70, 80]] = [0.0, -1.0, np.nan, np.inf]
    rate = fit_rate(steps, values, (1, 100))
    assert rate.exponent == pytest.approx(-1.0, abs=1e-12) and rate.points == 96


@pytest.mark.parametrize(
    ("steps", "values", "window", "message"),
    [
        ([1, 2], [1, 1], None, "at least three positive values"),
        ([1, 2, 3, 4], [1, 0, 0, 1], None, "at least three positive values"),
        ([], [], None, "at least three"),
        ([1, 2, 3, 4], [1, 1, 1, 1], (5, 9), r"at least three positive values, \(5, 9\) holds 0"),
        ([1, 2, 3], [1, 2], None, "vectors of one length"),
        ([[1, 2, 3]], [[1, 2, 3]], None, "vectors of one length"),
        ([4, 4, 4], [1, 2, 3], (1, 9), "at different steps"),
    ],
)
def test_too_little_to_fit_is_refused(steps, values, window, message):
    with pytest.raises(ValueError, match=message):
        fit_rate(steps, values, window)


def coverage(noise, trials: int = 400) -> float:
    """How often the 95 % interval of the fit covers the exponent that made the data."""
    rng = np.random.default_rng(0)
    steps = np.arange(50, 2050, 20)
    hits = 0
    for _ in range(trials):
        rate = fit_rate(steps, steps**-1.3 * np.exp(noise(rng, len(steps))), (1, 2050))
        hits += abs(rate.exponent + 1.3) <= rate.uncertainty
    return hits / trials


def test_intervals_cover_at_the_nominal_rate():
    """Binomial error of 400 trials at 95 %: 1.1 %; four of those, and some room for the estimated correlation."""
    assert 0.92 <= coverage(lambda rng, n: 0.3 * rng.standard_normal(n)) <= 0.99


def autoregressive(rng, n: int, rho: float = 0.6) -> np.ndarray:
    noise = rng.standard_normal(n)
    for i in range(1, n):
        noise[i] = rho * noise[i - 1] + math.sqrt(1 - rho**2) * noise[i]
    return 0.3 * noise


def test_intervals_allow_for_correlated_noise():
    """Close to nominal for a correlation of 0.6, where an interval that ignores it covers 70 % or so."""
    assert coverage(autoregressive) >= 0.88


# -- records --------------------------------------------------------------------------------------------------------


def test_tables():
    table = Table()
    assert len(table) == 0 and table.names == [] and "a" not in table
    table.append(a=1, b=2.5)
    table.append(b=3, a=np.float32(4))
    assert len(table) == 2 and table.names == ["a", "b"] and "a" in table
    assert table["a"].tolist() == [1.0, 4.0] and table["b"].tolist() == [2.5, 3.0]
    copy = Table.from_array(table.names, table.to_array())
    assert copy["b"].tolist() == [2.5, 3.0]
    copy.append(a=0, b=0)
    assert len(copy) == 3 and len(table) == 2
    with pytest.raises(ValueError, match=r"columns \['a', 'b'\], got \['a'\]"):
        table.append(a=1)
    assert len(table) == 2
    with pytest.raises(KeyError, match="no column 'c'"):
        table["c"]


RUNS = {
    "RAMDA": (lasso, RAMDA, {}),
    "inexact": (lasso, RAMDA, {"solver": "proximal_gradient"}),
    "ranks": (low_rank, RAMDA, {}),
    "branches": (mcp, RMDA, {}),
    "MADGRAD": (group_lasso, lambda psi: MADGRAD(), {}),
    "FISTA": (lasso, FISTA, {}),
}


@pytest.mark.parametrize("name", RUNS)
def test_records_save_and_load(name, tmp_path):
    make, kind, options = RUNS[name]
    problem = make()
    schedule = Schedule(0.05, averaging=0.7, tolerance=PolynomialTolerance(0.1))
    record = run(problem, kind(problem.regularizer, **options), schedule, 30, measure_every=7).record
    path = record.save(tmp_path / "new" / "run.npz")
    copy = Record.load(path)
    one, other = record.to_arrays(), copy.to_arrays()
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])
    assert copy.config == record.config and copy.steps_per_epoch == record.steps_per_epoch
    assert copy.metrics["step"].tolist() == [7, 14, 21, 28, 30]
    assert copy.structures_hat[-1] == record.structures_hat[-1]
    assert len(copy.inner) == len(record.inner) == (30 if name in ("inexact", "ranks") else 0)


def test_an_empty_record_saves_and_loads(tmp_path):
    copy = Record.load(Record().save(tmp_path / "empty.npz"))
    assert len(copy.structures_hat) == len(copy.metrics) == len(copy.inner) == 0
    copy.metrics.append(step=1.0)
    copy.structures_w.append(RIGHT)


def test_a_record_holds_no_copies_of_weights():
    """Bytes per step: a bit for each of the 64 pixels, for What and for W."""
    problem = digits()
    record = run(problem, MDA(), Schedule(0.1), 1, gradients=SampledGradient(64)).record
    for _ in range(2 * 1024 - 1):
        for trace in (record.structures_hat, record.structures_w):
            trace.append(trace[-1])
    size = sum(array.nbytes for array in record.to_arrays().values() if array.dtype.kind in "iuf")
    assert size / 2048 < 2 * 64 / 8 + 1
