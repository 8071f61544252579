"""Tolerance sequences: the sum of squares that (8) bounds, and sequences that would break it refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ramda_theory.subproblem import ConstantTolerance, GeometricTolerance, PolynomialTolerance


@pytest.mark.parametrize("power", [0.51, 0.75, 1.0, 2.0])
def test_polynomial_sum_lies_between_partial_sum_and_integral(power):
    """sum_{t<=N} eps_t^2 + int_{N+1}^inf <= sum <= the same with int_N^inf."""
    tolerance = PolynomialTolerance(0.3, power)
    n = 20_000
    partial = math.fsum(tolerance(t) ** 2 for t in range(1, n + 1))

    def tail(start):
        return 0.09 * start ** (1 - 2 * power) / (2 * power - 1)

    assert partial + tail(n + 1) <= tolerance.sum_of_squares * (1 + 1e-12)
    assert tolerance.sum_of_squares <= (partial + tail(n)) * (1 + 1e-12)
    assert tolerance(1) == 0.3 and tolerance(4) == pytest.approx(0.3 * 4.0**-power)


@pytest.mark.parametrize("ratio", [0.1, 0.9, 0.999])
def test_geometric_sum(ratio):
    tolerance = GeometricTolerance(2.0, ratio)
    assert tolerance.sum_of_squares == pytest.approx(math.fsum(tolerance(t) ** 2 for t in range(1, 40_000)), rel=1e-12)
    assert [tolerance(1), tolerance(2)] == [2.0, 2.0 * ratio]


def test_constant_violates_the_condition():
    assert ConstantTolerance(1e-3).sum_of_squares == math.inf and ConstantTolerance(0).sum_of_squares == 0
    assert ConstantTolerance(1e-3)(1) == ConstantTolerance(1e-3)(10**6) == 1e-3


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: PolynomialTolerance(1.0, 0.5), ValueError, "power must be finite and > 0.5, got 0.5"),
        (lambda: PolynomialTolerance(1.0, 0.2), ValueError, "power must be finite and > 0.5, got 0.2"),
        (lambda: PolynomialTolerance(0.0), ValueError, "initial must be finite and > 0, got 0.0"),
        (lambda: PolynomialTolerance(np.inf), ValueError, "initial must be finite"),
        (lambda: GeometricTolerance(1.0, 1.0), ValueError, r"ratio must be in \(0, 1\), got 1.0"),
        (lambda: GeometricTolerance(1.0, 0.0), ValueError, "ratio must be finite and > 0, got 0.0"),
        (lambda: GeometricTolerance(-1.0, 0.5), ValueError, "initial must be finite and > 0, got -1.0"),
        (lambda: ConstantTolerance(-1.0), ValueError, "value must be finite and >= 0, got -1.0"),
        (lambda: ConstantTolerance("1"), TypeError, "value must be a real number, got '1'"),
    ],
)
def test_sequences_that_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
