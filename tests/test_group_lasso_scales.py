"""The group LASSO in the metric at sizes whose squares and cubes leave float64's range; diagonals it must refuse."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ramda_theory.regularizers import L1, MCP, SCAD, ElasticNet, GroupLasso, SparseGroupLasso
from ramda_theory.regularizers.pieces import positive
from ramda_theory.subproblem import Subproblem, solve

POWERS = st.integers(-145, 145)


def reference(b, d, lam):
    """The minimiser of one group by bisection in 60 digits, for any scale."""
    with mpmath.workdps(60):
        b, d, lam = [mpmath.mpf(float(x)) for x in b], [mpmath.mpf(float(x)) for x in d], mpmath.mpf(float(lam))
        if mpmath.sqrt(sum(x * x for x in b)) <= lam:
            return np.zeros(len(b))
        low, high = mpmath.mpf(0), 2 * mpmath.sqrt(sum((x / y) ** 2 for x, y in zip(b, d, strict=True)))
        for _ in range(400):
            middle = (low + high) / 2
            long = sum((x / (middle * y + lam)) ** 2 for x, y in zip(b, d, strict=True)) > 1
            low, high = (middle, high) if long else (low, middle)
        return np.array([float(high * x / (high * y + lam)) for x, y in zip(b, d, strict=True)])


@settings(deadline=None, max_examples=60)
@given(POWERS, POWERS, st.floats(0.0, 6.0), st.floats(0.05, 1.3), st.integers(0, 10**6))
def test_every_scale_against_mpmath(size, metric, spread, level, seed):
    rng = np.random.default_rng(seed)
    b = rng.standard_normal(5) * 10.0**size
    spread = min(spread, 149.0 - abs(metric))
    d = 10.0 ** (metric + rng.uniform(-spread, spread, 5))
    lam = level * float(np.linalg.norm(b * 10.0**-size)) * 10.0**size
    expected = reference(b, d, lam)
    if not np.all(np.isfinite(expected)) or np.any((expected != 0) & (np.abs(expected) < 1e-300)):
        return  # the solution itself is no float64
    found = GroupLasso(lam, dims=(0,), size_scaled=False).metric_prox(-b, d)
    np.testing.assert_allclose(found, expected, rtol=1e-12 / abs(1 - level) if level != 1 else 1)


@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
def test_groups_of_all_scales_together(library, monkeypatch):
    """On the host, and as on a device, where every group is scaled without looking."""
    rng = np.random.default_rng(0)
    scales = 10.0 ** np.arange(-140, 141, 7)
    b, d = rng.standard_normal((6, scales.size)) * scales, 10.0 ** rng.uniform(-3, 3, (6, scales.size))
    expected = np.stack([reference(x, y, 1e-6) for x, y in zip(b.T, d.T, strict=True)], axis=1)
    assert np.any(expected[0] == 0) and np.any(expected[0] != 0)
    psi = GroupLasso(1e-6, dims=(0,), size_scaled=False)
    np.testing.assert_allclose(np.asarray(psi.metric_prox(library(-b), library(d))), expected, rtol=1e-12)
    monkeypatch.setattr("ramda_theory.regularizers.scalar_equation.is_host", lambda array: False)
    np.testing.assert_allclose(np.asarray(psi.metric_prox(library(-b), library(d))), expected, rtol=1e-12)


@pytest.mark.parametrize("power", [-150, -100, 0, 103, 150])
def test_solve_judges_honestly_at_every_scale(power):
    rng = np.random.default_rng(1)
    scale = 10.0**power
    problem = Subproblem(np.zeros((4, 3)), rng.standard_normal((4, 3)) * scale * 0.4, np.ones((4, 3)), scale,
                         GroupLasso(0.5, size_scaled=False))  # fmt: skip
    solution = solve(problem)
    assert solution.status == "solved" and 0 < solution.structure.count < 3
    wrong = problem.residual(1.5 * solution.point)
    assert float(wrong) > 0.01 * scale  # a point that is not the solution is never called one


def test_far_outside_there_is_a_clear_error():
    psi = GroupLasso(1.0, size_scaled=False)
    one = np.ones((2, 2))
    with pytest.raises(ValueError, match=r"b must not exceed 1e\+150 in size, got 1e\+160"):
        psi.metric_prox(1e160 * one, one)
    with pytest.raises(ValueError, match=r"diag must be at least 1e-150, got 1e-200"):
        psi.metric_prox(one, 1e-200 * one)
    with pytest.raises(ValueError, match=r"threshold must not exceed"):
        psi.metric_prox(one, one, 1e200)


ALL = [L1(0.5), ElasticNet(0.5, 0.1), MCP(0.5, 3.0), SCAD(0.5, 3.7), GroupLasso(0.5), SparseGroupLasso(0.5, 0.3)]


@pytest.mark.parametrize("bad", [0.0, -1.0])
@pytest.mark.parametrize("psi", ALL, ids=repr)
def test_a_diagonal_that_is_not_positive(psi, bad):
    for library in (np.asarray, torch.as_tensor):
        diag = np.ones((3, 2))
        diag[1, 1] = bad
        with pytest.raises(ValueError, match=rf"diag must be positive everywhere, its smallest entry is {bad:g}"):
            psi.metric_prox(library(np.ones((3, 2))), library(diag))


@pytest.mark.parametrize("library", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("psi", ALL, ids=repr)
def test_nan_stays_in_its_piece(psi, library):
    linear, diag = np.full((3, 2), 0.01), np.ones((3, 2))
    for spoiled in (linear, diag):
        spoiled[1, 1] = np.nan
        x = np.asarray(psi.metric_prox(library(linear), library(diag)))
        assert np.isnan(x[1, 1]) and np.all(x[:, 0] == 0)
        spoiled[1, 1] = 1.0


def test_on_a_device_nothing_waits(monkeypatch):
    monkeypatch.setattr("ramda_theory.regularizers.pieces.is_host", lambda array: False)
    np.testing.assert_array_equal(positive(np, np.array([1.0, 0.0, -2.0])), [1.0, np.nan, np.nan])
