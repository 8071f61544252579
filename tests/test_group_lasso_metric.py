"""The group LASSO in a diagonal metric against extended precision, in every regime and at sizes 1 to 4096."""

from __future__ import annotations

from functools import lru_cache

import mpmath
import numpy as np
import pytest
from backends import BACKENDS, DOUBLE, NUMPY32, TORCH32, to_numpy

from ramda_theory.arrays import namespace
from ramda_theory.regularizers import GroupLasso, scalar_equation
from ramda_theory.regularizers.scalar_equation import MAX_UPDATES, group_lasso_minimizer, group_lasso_norms
from ramda_theory.subproblem import Subproblem
from ramda_theory.subproblem.bisection import bisection_reference
from ramda_theory.subproblem.generated import GROUP_LASSO_REGIMES, group_lasso_problem

SIZES = {1: 24, 2: 24, 7: 24, 64: 24, 513: 6, 4096: 3}
"""Group sizes and how many groups of them."""

EPS = 2.0**-52


@lru_cache(maxsize=512)
def data_and_reference(regime, size, dtype):
    """b, diag and psi as ``dtype`` stores them, the solution of exactly that data in extended precision, and gaps."""
    problem = group_lasso_problem(regime, size, SIZES[size])
    b, diag = (a.astype(dtype).astype(float) for a in (-problem.grad_sum, problem.metric))
    stored = Subproblem(np.zeros_like(b), -b, diag, 1.0, problem.regularizer)
    norms = np.sqrt(np.sum(np.longdouble(b) ** 2, axis=0))
    return b, diag, problem.regularizer, bisection_reference(stored), 1 - problem.regularizer.weight / norms


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("regime", GROUP_LASSO_REGIMES)
def test_error_in_every_regime(regime, size, backend):
    """Relative error of a group <= 100 eps / gap, gap = 1 - weight / ||b||, plus one rounding to the dtype."""
    b, diag, psi, reference, gaps = data_and_reference(regime, size, backend.dtype)
    x = to_numpy(psi.metric_prox(-backend.array(b), backend.array(diag)))
    for g, gap in enumerate(gaps):
        if gap <= 0:
            assert not np.any(reference[:, g]) and (not np.any(x[:, g]) or gap > -4 * EPS)
        elif gap > 4 * EPS:
            error = np.linalg.norm((x[:, g] - reference[:, g]).astype(float)) / float(
                np.sqrt(np.sum(reference[:, g] ** 2))
            )
            assert error <= 100 * EPS / gap + (0 if backend.dtype == "float64" else 1e-7)
            if gap > 0.05:
                assert error <= (1e-12 if backend.dtype == "float64" else 1e-6)


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
@pytest.mark.parametrize("size", [1, 7, 513])
@pytest.mark.parametrize("regime", GROUP_LASSO_REGIMES)
def test_error_where_values_cannot_be_looked_at(regime, size, backend, monkeypatch):
    """On a device all updates are made without asking whether they are needed; the result is as good."""
    monkeypatch.setattr(scalar_equation, "is_host", lambda array: False)
    test_error_in_every_regime(regime, size, backend)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("regime", GROUP_LASSO_REGIMES)
def test_few_newton_updates(regime, seed):
    for size, groups in SIZES.items():
        problem = group_lasso_problem(regime, size, groups, seed)
        psi, b = problem.regularizer, -problem.grad_sum
        rho, zero, updates = group_lasso_norms(np, psi.groups(b), b, problem.metric, psi.weight)
        assert updates <= MAX_UPDATES == 15
        x = psi.metric_prox(problem.grad_sum, problem.metric)
        assert np.array_equal(zero, ~x.any(axis=0, keepdims=True))
        assert np.all(np.abs(np.linalg.norm(x, axis=0) - rho) <= 1e-13 * rho)


@pytest.mark.parametrize("backend", [NUMPY32, TORCH32], ids=str)
@pytest.mark.parametrize("size", [1, 3, 64, 1000])
def test_no_false_zero_in_float32(size, backend):
    """Totals are float64: a group of float32 data stays nonzero 1e-8 above the threshold and is zero 1e-8 below."""
    rng = np.random.default_rng(size)
    for gap in 10.0 ** np.linspace(-8, -1, 15):
        b = backend.round(rng.standard_normal((size, 1)))
        diag = backend.round(10.0 ** rng.uniform(-6, 3, (size, 1)))
        norm = np.sqrt(np.sum(np.longdouble(b) ** 2))
        for sign in (1, -1):
            psi = GroupLasso(float(norm * (1 - sign * np.longdouble(gap))), size_scaled=False)
            x = to_numpy(psi.metric_prox(-backend.array(b), backend.array(diag)))
            if sign < 0:
                assert not np.any(x)
                continue
            assert np.any(x)
            reference = bisection_reference(Subproblem(np.zeros_like(b), -b, diag, 1.0, psi))
            error = np.linalg.norm((x - reference).astype(float)) / np.linalg.norm(reference.astype(float))
            assert error <= 1e-7 + 100 * EPS / gap


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
def test_tie_is_zero(backend):
    """||b|| = weight exactly gives zero; one ulp less weight does not."""
    b, diag = backend.array([[3.0], [4.0]]), backend.array([[1e-6], [1e3]])
    assert not np.any(to_numpy(GroupLasso(5.0, size_scaled=False).metric_prox(-b, diag)))
    assert np.all(to_numpy(GroupLasso(np.nextafter(5.0, 0), size_scaled=False).metric_prox(-b, diag)))
    assert not np.any(to_numpy(GroupLasso(5.0, size_scaled=False).prox(b)))
    assert np.all(to_numpy(GroupLasso(np.nextafter(5.0, 0), size_scaled=False).prox(b)))


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
def test_zero_weight_is_a_division(backend):
    """Without a weight the minimiser is b / diag, entry by entry, and zero only where b is."""
    problem = group_lasso_problem("zero_weight", 16, 16)
    b, diag = backend.array(-problem.grad_sum), backend.array(problem.metric)
    b[:, 3] = 0
    assert np.array_equal(to_numpy(problem.regularizer.metric_prox(-b, diag)), to_numpy(b / diag))


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
def test_too_few_updates_are_an_error(backend):
    problem = group_lasso_problem("spread")
    psi, b, diag = problem.regularizer, backend.array(-problem.grad_sum), backend.array(problem.metric)
    xp = namespace(b=b)
    group_lasso_minimizer(xp, psi.groups(b), b, diag, psi.weight, max_updates=MAX_UPDATES)
    with pytest.raises(RuntimeError, match="max_updates=2"):
        group_lasso_minimizer(xp, psi.groups(b), b, diag, psi.weight, max_updates=2)


def fifty_digits(b, diag, lam):
    """x of one group in 50-digit arithmetic: bisection on ||b / (rho d + lam)|| = 1 in the logarithm of rho."""
    with mpmath.workdps(50):
        b, diag, lam = [mpmath.mpf(float(v)) for v in b], [mpmath.mpf(float(v)) for v in diag], mpmath.mpf(float(lam))
        size = mpmath.sqrt(sum(v * v for v in b))
        if size <= lam:
            return np.zeros(len(b)), 1.0
        low, high = mpmath.log((size - lam) / max(diag)), mpmath.log((size - lam) / min(diag))
        for _ in range(120):
            middle = (low + high) / 2
            rho = mpmath.exp(middle)
            short = sum((v / (rho * d + lam)) ** 2 for v, d in zip(b, diag, strict=True)) > 1
            low, high = (middle, high) if short else (low, middle)
        rho = mpmath.exp(high)
        x = [float(rho * v / (rho * d + lam)) for v, d in zip(b, diag, strict=True)]
        return np.array(x), float(1 - lam / size)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("regime", [regime for regime in GROUP_LASSO_REGIMES if regime != "zero_weight"])
def test_against_fifty_digits(regime, size):
    """The exact solver, and the reference of the other tests, against arithmetic of 50 digits."""
    problem = group_lasso_problem(regime, size, groups=6, seed=1)
    psi, b = problem.regularizer, -problem.grad_sum
    x, reference = psi.metric_prox(-b, problem.metric), bisection_reference(problem)
    for g in range(6):
        expected, gap = fifty_digits(b[:, g], problem.metric[:, g], psi.weight)
        error, reference_error = (np.linalg.norm((a[:, g] - expected).astype(float)) for a in (x, reference))
        assert error <= 100 * EPS / abs(gap) * np.linalg.norm(expected)
        assert reference_error <= 2 * EPS / abs(gap) * np.linalg.norm(expected)
