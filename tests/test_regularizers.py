"""What every regularizer's value and proximal maps satisfy, in one body for all of them and both array libraries."""

from __future__ import annotations

import dataclasses

import numpy as np
import plain
import pytest
from backends import BACKENDS, DOUBLE, HALF, LAYOUTS, NUMPY64, to_numpy
from cases import CONVEX_KINDS, KINDS, METRIC_KINDS, cases
from hypothesis import given
from hypothesis import strategies as st

every_backend = pytest.mark.parametrize("backend", BACKENDS, ids=str)
double_precision = pytest.mark.parametrize("backend", DOUBLE, ids=str)


def minimiser(case, backend, metric):
    """(x, linear, diag, scale): what `prox` or, in a metric, `metric_prox` returns, and the data it saw, in float64."""
    z, diag = case.arrays(backend)
    if metric:
        x = case.regularizer.metric_prox(-z, diag, case.step)
        return x, -to_numpy(z), to_numpy(diag), case.step
    return case.regularizer.prox(z, case.step), -to_numpy(z), np.ones(case.z.shape), case.step


def objective(case, x, linear, diag, scale):
    return float(np.sum(linear * x + 0.5 * diag * x**2)) + scale * plain.value(case.regularizer, x)


def competitors(case, x, linear, diag):
    """Points the minimiser has to beat: 0, the unregularized minimum, and moves from it near and far."""
    rng, size = case.rng, np.max(np.abs(linear / diag), initial=0.0)
    yield np.zeros_like(x)
    yield -linear / diag
    yield x * (1 + 1e-3 * rng.standard_normal(x.shape))
    yield x * rng.integers(0, 2, x.shape)
    yield x + size * rng.standard_normal(x.shape)
    yield x + 1e-4 * size * rng.standard_normal(x.shape)


@every_backend
@pytest.mark.parametrize("metric", [False, True], ids=["prox", "metric_prox"])
@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_three_point_inequality(kind, metric, backend, data):
    """Q(y) >= Q(x*) + 1/2 ||y - x*||^2 in the metric diag - scale * weak_convexity, or in none where that is negative.

    For convex psi the metric is ``diag``; where the curvature is not positive the inequality says: a global minimum.
    """
    case = data.draw(cases(kind))
    if metric and not case.regularizer.has_metric_prox(case.arrays(backend)[1], case.step):
        return
    x, linear, diag, scale = minimiser(case, backend, metric)
    x = to_numpy(x)
    curvature = (diag - scale * case.regularizer.weak_convexity).ravel()
    for piece in plain.pieces(case.regularizer, case.z.shape):
        curvature[piece] *= np.all(curvature[piece] > 0)
    curvature = np.maximum(curvature, 0).reshape(diag.shape)
    q = objective(case, x, linear, diag, scale)
    for y in competitors(case, x, linear, diag):
        # x comes with a subgradient of Q that rounding keeps from being zero, and Q itself with that of its terms.
        stationarity = np.linalg.norm(np.abs(linear) + diag * np.abs(x)) * np.linalg.norm(y - x)
        terms = sum(float(np.sum(np.abs(linear * p) + diag * p**2)) for p in (x, y))
        psi = scale * (plain.value(case.regularizer, x) + plain.value(case.regularizer, y))
        slack = 64 * backend.eps * stationarity + 64 * 2.0**-52 * (terms + psi)
        gain = objective(case, y, linear, diag, scale) - q
        assert gain >= 0.5 * float(np.sum(curvature * (y - x) ** 2)) - slack


@every_backend
@pytest.mark.parametrize("metric", [False, True], ids=["prox", "metric_prox"])
@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_minimiser_is_stationary(kind, metric, backend, data):
    """The class's own subdifferential contains -(linear + diag x), to rounding of the terms that cancel."""
    case = data.draw(cases(kind))
    if metric and not case.regularizer.has_metric_prox(case.arrays(backend)[1], case.step):
        return
    x, linear, diag, scale = minimiser(case, backend, metric)
    g = linear + diag * to_numpy(x)
    wide_g = backend.array(g) if backend.dtype == "float64" else dataclasses.replace(backend, dtype="float64").array(g)
    distance = float(case.regularizer.subdifferential_distance(x, wide_g, scale))
    assert distance <= 64 * backend.eps * np.linalg.norm(np.abs(linear) + diag * np.abs(to_numpy(x)))


@every_backend
@pytest.mark.parametrize("metric", [False, True], ids=["prox", "metric_prox"])
@pytest.mark.parametrize("kind", METRIC_KINDS)
@given(st.data())
def test_zeros_are_exact_and_where_theory_says(kind, metric, backend, data):
    """A piece is exactly zero when ||b|| <= threshold and nonzero when it is above, up to the rounding of ||b||."""
    case = data.draw(cases(kind))
    regularizer = case.regularizer
    if metric and not regularizer.has_metric_prox(case.arrays(backend)[1], case.step):
        return
    x, linear, diag, scale = minimiser(case, backend, metric)
    x, b, diag = (to_numpy(a).ravel() for a in (x, -linear, diag))
    if kind == "SparseGroupLasso":
        lam, ratio = regularizer.weight, regularizer.l1_ratio
        assert np.all(x[np.abs(b) <= scale * lam * ratio * (1 - 1e-15)] == 0)
        b = np.sign(b) * np.maximum(np.abs(b) - scale * lam * ratio, 0)
        regularizer = dataclasses.replace(regularizer, weight=lam * (1 - ratio))
    for piece in plain.pieces(regularizer, case.z.shape):
        size = np.sqrt(np.sum(np.longdouble(b[piece]) ** 2))
        d = diag[piece[0]]
        if kind == "GroupMCP" and size > 0:
            d = float(size**2 / np.sum(np.longdouble(b[piece]) ** 2 / diag[piece]))  # with the curvature along b/d
        bound = plain.threshold(regularizer, len(piece), d, scale)
        slack = 8 * 2.0**-52 * (bound + np.linalg.norm(linear.ravel()[piece]))
        if size <= bound - slack:
            assert np.all(x[piece] == 0)
        elif size > bound + slack:
            assert np.any(x[piece] != 0)


@every_backend
@pytest.mark.parametrize("kind", METRIC_KINDS)
@given(st.data())
def test_prox_is_metric_prox_of_a_constant_metric(kind, backend, data):
    case = data.draw(cases(kind))
    constant = 2.0 ** data.draw(st.integers(-8, 8))
    z, _ = case.arrays(backend)
    diag = backend.array(np.full(case.z.shape, constant))
    if not case.regularizer.has_metric_prox(diag, constant * case.step):
        return
    from_metric = to_numpy(case.regularizer.metric_prox(-constant * z, diag, constant * case.step))
    from_prox = to_numpy(case.regularizer.prox(z, case.step))
    for piece in plain.pieces(case.regularizer, case.z.shape):
        x, y, size = from_metric.ravel()[piece], from_prox.ravel()[piece], np.linalg.norm(case.z.ravel()[piece])
        curvature = 1 - case.step * case.regularizer.weak_convexity
        assert np.linalg.norm(x - y) <= 8 * backend.eps * size / (curvature if curvature > 0 else 1)


@every_backend
@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_value_is_the_published_formula(kind, backend, data):
    case = data.draw(cases(kind))
    w, _ = case.arrays(backend)
    got = case.regularizer.value(w)
    assert got.ndim == 0 and str(got.dtype).endswith("float64")
    assert float(got) == pytest.approx(plain.value(case.regularizer, to_numpy(w)), rel=1e-12, abs=0)


@double_precision
@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_scaling_identities(kind, backend, data):
    """With c weight in place of weight, every psi here has psi(c w) = c^2 psi(w) and prox(c z) = c prox(z)."""
    case = data.draw(cases(kind))
    regularizer, (z, diag) = case.regularizer, case.arrays(backend)
    c = 2.0 ** data.draw(st.integers(-40, 40))
    scaled = dataclasses.replace(regularizer, weight=c * regularizer.weight)
    size = np.linalg.norm(case.z)
    assert float(scaled.value(c * z)) == pytest.approx(c * c * float(regularizer.value(z)), rel=1e-13)
    assert (
        np.linalg.norm(to_numpy(scaled.prox(c * z, case.step) - c * regularizer.prox(z, case.step))) <= 1e-13 * c * size
    )
    if regularizer.has_metric_prox(diag, case.step):
        x = to_numpy(regularizer.metric_prox(-z, diag, case.step))
        tolerance = 1e-13 * np.abs(x)
        assert np.all(np.abs(to_numpy(scaled.metric_prox(-c * z, diag, case.step)) / c - x) <= tolerance)
        # Q and c Q have one minimiser, and that of Q(-x) is -x.
        assert np.all(np.abs(to_numpy(regularizer.metric_prox(-c * z, c * diag, c * case.step)) - x) <= tolerance)
        assert np.all(to_numpy(regularizer.metric_prox(z, diag, case.step)) == -x)


@double_precision
@pytest.mark.parametrize("kind", CONVEX_KINDS)
@given(st.data())
def test_convex_prox_is_firmly_nonexpansive(kind, backend, data):
    """||prox(y) - prox(z)||^2 <= <y - z, prox(y) - prox(z)>."""
    case = data.draw(cases(kind))
    other = case.z + 10.0 ** case.rng.integers(-3, 1) * case.rng.standard_normal(case.z.shape) * np.max(
        np.abs(case.z), initial=0.0
    )
    z, y = (to_numpy(case.regularizer.prox(backend.array(a), case.step)) for a in (case.z, other))
    size = np.linalg.norm(case.z) + np.linalg.norm(other)
    assert np.sum((y - z) ** 2) <= np.sum((other - case.z) * (y - z)) + 1e-14 * size * np.linalg.norm(other - case.z)


@every_backend
@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_layout_does_not_matter_and_nothing_is_written(kind, backend, data):
    """Same result from any memory layout (to the order of summation), of the input's dtype; inputs are left alone."""
    case = data.draw(cases(kind))
    plain_z, plain_diag = backend.array(case.z), backend.array(case.diag)
    expected = {"prox": to_numpy(case.regularizer.prox(plain_z, case.step))}
    exact = case.regularizer.has_metric_prox(plain_diag, case.step)
    if exact:
        expected["metric_prox"] = to_numpy(case.regularizer.metric_prox(plain_z, plain_diag, case.step))
    for layout in LAYOUTS:
        z, diag = backend.array(case.z, layout), backend.array(case.diag, layout)
        got = {"prox": case.regularizer.prox(z, case.step)}
        if exact:
            got["metric_prox"] = case.regularizer.metric_prox(z, diag, case.step)
        for name, x in got.items():
            assert x.dtype == z.dtype and tuple(x.shape) == case.z.shape
            size = np.max(np.abs(expected[name]), initial=0.0)
            weak = 1 + case.regularizer.weak_convexity * case.step / np.min(np.abs(case.diag), initial=1.0)
            assert np.all(np.abs(to_numpy(x) - expected[name]) <= 16 * weak * backend.eps * size), (name, layout)
        assert np.array_equal(to_numpy(z), to_numpy(plain_z)) and np.array_equal(to_numpy(diag), to_numpy(plain_diag))


@double_precision
@pytest.mark.parametrize("kind", METRIC_KINDS)
@given(st.data())
def test_a_step_per_piece_is_a_prox_per_piece(kind, backend, data):
    """`group_max` and `spread` name the pieces, and `prox` takes one step for each of them."""
    case = data.draw(cases(kind, empty=False))
    regularizer, (z, diag) = case.regularizer, case.arrays(backend)
    steps = 1.0 / regularizer.group_max(diag)
    x = to_numpy(regularizer.prox(z, steps)).ravel()
    laid_out = np.broadcast_to(to_numpy(regularizer.spread(steps, diag)), case.z.shape).ravel()
    for piece in plain.pieces(regularizer, case.z.shape):
        largest = np.max(case.diag.ravel()[piece])
        assert np.all(laid_out[piece] == 1.0 / largest)
        alone = to_numpy(regularizer.prox(z, 1.0 / largest)).ravel()
        assert np.array_equal(x[piece], alone[piece])


@pytest.mark.parametrize("backend", HALF, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_half_precision_rounds_the_float64_result(kind, backend, data):
    """In half precision the result is that of float64 on the same data, rounded once."""
    case = data.draw(cases(kind, scales=1.0, spread=2.0))
    z, diag = case.arrays(backend)
    regularizer = case.regularizer
    expected = regularizer.prox(NUMPY64.array(to_numpy(z)), case.step)
    half_ulp = 0.51 * backend.eps * np.abs(expected) + 2.0**-24
    assert np.all(np.abs(to_numpy(regularizer.prox(z, case.step)) - expected) <= half_ulp)
    if regularizer.has_metric_prox(diag, case.step):
        expected = regularizer.metric_prox(to_numpy(z), to_numpy(diag), case.step)
        if np.max(np.abs(expected), initial=0.0) < 6e4:
            half_ulp = 0.51 * backend.eps * np.abs(expected) + 2.0**-24
            assert np.all(np.abs(to_numpy(regularizer.metric_prox(z, diag, case.step)) - expected) <= half_ulp)
