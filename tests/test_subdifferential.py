"""First-order conditions: distances to the subdifferential, margins and critical weights against other definitions."""

from __future__ import annotations

import dataclasses

import numpy as np
import plain
import pytest
from backends import BACKENDS, DOUBLE, NUMPY64, to_numpy
from cases import KINDS, cases
from hypothesis import given
from hypothesis import strategies as st

from ramda_theory.regularizers import NuclearNorm

double_precision = pytest.mark.parametrize("backend", DOUBLE, ids=str)


def on_a_manifold(case):
    """A point with zeros (a low rank) where the case's proximal step has them, and all else well away from zero."""
    w = to_numpy(case.regularizer.prox(NUMPY64.array(case.z), case.step))
    if isinstance(case.regularizer, NuclearNorm):
        u, s, vh = np.linalg.svd(plain.matricised(case.regularizer, w), full_matrices=False)
        largest = np.max(s, initial=0.0)
        lifted = np.where(s > 1e-10 * largest, s + 0.1 * largest, 0)
        return plain.unmatricised(case.regularizer, (u * lifted) @ vh, w.shape)
    return w + 0.1 * np.max(np.abs(w), initial=0.0) * np.sign(w)


def directional_derivative(regularizer, w, g, direction):
    """Derivative of <g, .> + psi at w along ``direction``, one-sided, by extrapolated differences of the plain psi."""

    def slope(t):
        return (plain.value(regularizer, w + t * direction) - plain.value(regularizer, w)) / t

    size = np.linalg.norm(w) or 1.0
    t = 1e-5 * size / (np.linalg.norm(direction) or 1.0)
    return float(np.sum(g * direction)) + 2 * slope(t) - slope(2 * t)


@double_precision
@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_distance_is_the_steepest_descent(kind, backend, data):
    """dist(-g, d psi(w)) = max over unit u of -(<g, u> + psi'(w; u)), reached at u = -residual / ||residual||."""
    case = data.draw(cases(kind, scales=0.5, empty=False))
    w = on_a_manifold(case)
    regularizer = case.regularizer
    g = 3 * regularizer.weight * case.rng.standard_normal(w.shape)
    residual = to_numpy(regularizer.subdifferential_residual(backend.array(w), backend.array(g)))
    distance = float(regularizer.subdifferential_distance(backend.array(w), backend.array(g)))
    assert distance == pytest.approx(np.linalg.norm(residual), rel=1e-12)
    accuracy = 1e-6 * (regularizer.weight * np.sqrt(w.size) * (1 + getattr(regularizer, "l2", 0)) + np.linalg.norm(g))
    accuracy += 1e-5 * (getattr(regularizer, "l2", 0) + regularizer.weak_convexity) * np.linalg.norm(w)
    if distance > 0:
        steepest = directional_derivative(regularizer, w, g, -residual / distance)
        assert steepest == pytest.approx(-distance, abs=accuracy)
    for _ in range(4):
        direction = case.rng.standard_normal(w.shape) * case.rng.integers(0, 2, w.shape)
        direction /= np.linalg.norm(direction) or 1.0
        assert directional_derivative(regularizer, w, g, direction) >= -distance - accuracy


@double_precision
@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_scale_multiplies_the_subdifferential(kind, backend, data):
    """dist(-g, c d psi) = c dist(-g/c, d psi); at w = 0 it is that of psi with weight c weight."""
    case = data.draw(cases(kind))
    w, g = backend.array(on_a_manifold(case)), backend.array(case.rng.standard_normal(case.z.shape) * case.z)
    c = 2.0 ** data.draw(st.integers(-20, 20))
    whole = float(case.regularizer.subdifferential_distance(w, g, c))
    assert whole == pytest.approx(c * float(case.regularizer.subdifferential_distance(w, g / c)), rel=1e-9, abs=1e-300)
    zero = backend.array(np.zeros(case.z.shape))
    heavier = dataclasses.replace(case.regularizer, weight=c * case.regularizer.weight)
    expected = float(heavier.subdifferential_distance(zero, g))
    assert float(case.regularizer.subdifferential_distance(zero, g, c)) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def bisected_critical_weight(regularizer, g):
    """Least weight with ||soft(g_g, t l1)|| <= t (1 - l1) root for every group, by bisection in extended precision."""
    ratio, worst = np.longdouble(regularizer.l1_ratio), np.longdouble(0)
    for piece in plain.pieces(regularizer, g.shape):
        entries = np.abs(np.longdouble(g.ravel()[piece]))
        radius = (1 - ratio) * (np.sqrt(np.longdouble(len(piece))) if regularizer.size_scaled else 1)
        low, high = np.longdouble(0), np.sum(entries) / max(ratio, radius) if len(piece) else np.longdouble(0)
        for _ in range(90):
            t = (low + high) / 2
            outside = np.sqrt(np.sum(np.maximum(entries - t * ratio, 0) ** 2)) > t * radius
            low, high = (t, high) if outside else (low, t)
        worst = max(worst, high)
    return float(worst)


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_critical_weight(kind, backend, data):
    """Zero is stationary at the critical weight and above, not just below; the proximal step is zero from there on."""
    case = data.draw(cases(kind))
    g = backend.array(case.z, case.layout)
    critical = case.regularizer.critical_weight(g)
    assert critical.ndim == 0 and str(critical.dtype).endswith("float64")
    critical = float(critical)
    assert critical >= 0 and (critical > 0) == bool(np.any(to_numpy(g)))
    if kind == "SparseGroupLasso":
        assert critical == pytest.approx(bisected_critical_weight(case.regularizer, to_numpy(g)), rel=1e-14)
    zero = 0 * g
    at, above, below = (
        dataclasses.replace(case.regularizer, weight=critical * factor) for factor in (1, 1 + 1e-12, 1 - 1e-9)
    )
    assert float(at.subdifferential_distance(zero, g)) <= 4e-15 * np.linalg.norm(to_numpy(g))
    assert float(above.subdifferential_distance(zero, g)) == 0
    if above.convex:
        assert not np.any(to_numpy(above.prox(g)))
    if critical > 0:
        assert float(below.subdifferential_distance(zero, g)) > 0
        assert float(at.nondegeneracy_margin(zero, g)) == pytest.approx(0, abs=1e-14)
