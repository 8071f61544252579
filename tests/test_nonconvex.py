"""Nonconvex regularizers: weak convexity, and global minimisers in any metric against a fine grid."""

from __future__ import annotations

import numpy as np
import plain
import pytest
from examples import EXAMPLES, example_point


@pytest.mark.parametrize("regularizer", EXAMPLES, ids=str)
def test_weak_convexity(regularizer):
    """psi + rho/2 ||.||^2 is midpoint convex with rho = weak_convexity, and with no smaller rho."""
    rng = np.random.default_rng(2)
    shape = example_point(regularizer, rng).shape
    rho = regularizer.weak_convexity

    def gap(x, y, rho):
        middle = 0.5 * (x + y)
        psi = 0.5 * plain.value(regularizer, x) + 0.5 * plain.value(regularizer, y) - plain.value(regularizer, middle)
        return psi + rho / 8 * np.sum((x - y) ** 2)

    for scale in (0.1, 1.0, 10.0):
        for _ in range(20):
            x, y = scale * rng.standard_normal((2, *shape))
            assert gap(x, y, rho) >= -1e-12 * scale**2 * x.size
    assert (rho == 0) == regularizer.convex
    if rho > 0:  # along a ray psi is a concave parabola of curvature -rho: at 1 to 2 weights (MCP), 1.5 to 3.5 (SCAD)
        piece = plain.pieces(regularizer, shape)[0]
        unit = np.zeros(shape)
        unit.ravel()[piece] = 1 / np.sqrt(len(piece))
        weight = regularizer.weight * np.sqrt(len(piece))
        assert gap(1.5 * weight * unit, 2.5 * weight * unit, 0.999 * rho) < 0
