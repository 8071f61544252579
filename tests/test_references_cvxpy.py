"""Convex regularizers against CVXPY, which shares no mathematics with the package: moderate scale, 1e-4 at best."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import plain
import pytest
from backends import DOUBLE, to_numpy
from examples import EXAMPLES, example_point

from ramda_theory.regularizers import (
    L1,
    MCP,
    ElasticNet,
    GroupLasso,
    NuclearNorm,
    SparseGroupLasso,
)
from ramda_theory.subproblem import Cvxpy, Subproblem, solve

CASES = [
    # regularizer, shape, scale of the data, max/min of the metric
    (L1(0.3), (12,), 1e-2, 1.0),
    (L1(0.3), (4, 5), 1e2, 1e4),
    (ElasticNet(0.3, 0.7), (3, 2, 4), 1.0, 1e2),
    (ElasticNet(0.3, 5.0), (12,), 1e2, 1e4),
    (GroupLasso(0.3, (0,)), (6, 5), 1.0, 1.0),
    (GroupLasso(0.3, (0,)), (6, 5), 1e2, 1e4),
    (GroupLasso(0.3, (-1, 0)), (3, 4, 5), 1e-2, 1e2),
    (GroupLasso(0.3, (1,), size_scaled=False), (6, 5), 1.0, 1e4),
    (GroupLasso(0.3, size_scaled=False, labels=(3, 1, 1, 3, 3, -2, 1, 7, 7, 7, 7, 1)), (12,), 1.0, 1e2),
    (SparseGroupLasso(0.3, 0.4, (0,)), (6, 5), 1.0, 1e2),
    (SparseGroupLasso(0.3, 0.8, (0, 2), size_scaled=False), (2, 4, 3), 1e2, 1e2),
    (NuclearNorm(0.3), (6, 5), 1.0, 1e2),
    (NuclearNorm(0.3), (5, 7), 1e2, 1.0),
    (NuclearNorm(0.3, (2, 0), (1,)), (2, 5, 3), 1e-2, 1e2),
]


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
@pytest.mark.parametrize(("regularizer", "shape", "scale", "spread"), CASES)
def test_solution_agrees_with_cvxpy(regularizer, shape, scale, spread, backend):
    rng = np.random.default_rng(0)
    metric = spread ** rng.uniform(-0.5, 0.5, shape)
    anchor, b = scale * rng.standard_normal((2, *shape))
    anchor, b = anchor / np.sqrt(metric), b * np.sqrt(metric)
    weight_sum = 0.6 * float(regularizer.critical_weight(b)) / regularizer.weight
    arrays = (backend.array(a) for a in (anchor, metric * anchor - b, metric))
    problem = Subproblem(*arrays, weight_sum, regularizer)
    ours, theirs = solve(problem), solve(problem, Cvxpy(accuracy=1e-11))
    x, y = to_numpy(ours.point), to_numpy(theirs.point)
    assert ours.status == "solved" and theirs.iterations > 0
    assert np.linalg.norm(x - y) <= 1e-4 * np.linalg.norm(x)
    assert np.sqrt(np.sum(metric * (x - y) ** 2)) <= 1e-4 * np.sqrt(np.sum(metric * x**2))
    assert float(problem.objective(ours.point)) <= float(problem.objective(theirs.point)) + 1e-12 * scale**2
    assert 0 < ours.structure.dimension < x.size


def subgradients(regularizer, w):
    """A CVXPY variable s of the shape of vec(w), and the constraints that put it into d psi(w)."""
    s, lam, flat = cp.Variable(w.size), regularizer.weight, w.ravel()
    if isinstance(regularizer, NuclearNorm):
        order = [axis % w.ndim for axis in regularizer.row_dims + regularizer.column_dims]
        matrix = plain.matricised(regularizer, w)
        entries = np.arange(w.size).reshape(w.shape).transpose(order).reshape(matrix.shape)
        u, singular, vh = np.linalg.svd(matrix, full_matrices=False)
        rank = int(np.sum(singular > 1e-10))
        u, vh = u[:, :rank], vh[:rank]
        normal = cp.Variable(matrix.shape)
        constraints = [u.T @ normal == 0, normal @ vh.T == 0, cp.sigma_max(normal) <= 1]
        return s, [*constraints, s[entries.ravel()] == lam * cp.vec(u @ vh + normal, order="C")]
    if isinstance(regularizer, (L1, ElasticNet)):
        slope = lam * np.sign(flat) + getattr(regularizer, "l2", 0) * flat
        zero = flat == 0
        return s, [s[~zero] == slope[~zero], cp.abs(s[zero]) <= lam]
    ratio = getattr(regularizer, "l1_ratio", 0.0)
    box, ball = cp.Variable(w.size), cp.Variable(w.size)
    constraints = [s == ratio * lam * box + (1 - ratio) * lam * ball, cp.abs(box) <= 1]
    constraints.append(box[flat != 0] == np.sign(flat[flat != 0]))
    for piece in plain.pieces(regularizer, w.shape):
        root, size = np.sqrt(len(piece)) if regularizer.size_scaled else 1.0, np.linalg.norm(flat[piece])
        constraints.append(ball[piece] == root * flat[piece] / size if size else cp.norm2(ball[piece]) <= root)
    return s, constraints


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
@pytest.mark.parametrize("size", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("regularizer", [r for r in EXAMPLES if r.convex], ids=str)
def test_subdifferential_distance_is_a_projection(regularizer, size, backend):
    """min ||g + s|| over s in d psi(w), as a program; ``size`` times the weight is the size of the entries of g."""
    rng = np.random.default_rng(1)
    w = example_point(regularizer, rng)
    g = size * regularizer.weight * rng.standard_normal(w.shape)
    s, constraints = subgradients(regularizer, w)
    program = cp.Problem(cp.Minimize(cp.norm2(g.ravel() + s)), constraints)
    expected = program.solve(solver="CLARABEL")
    assert float(regularizer.subdifferential_distance(backend.array(w), backend.array(g))) == pytest.approx(
        expected, rel=1e-5
    )
    zero = np.zeros_like(w)
    s, constraints = subgradients(regularizer, zero)
    expected = cp.Problem(cp.Minimize(cp.norm2(g.ravel() + s)), constraints).solve(solver="CLARABEL")
    distance = float(regularizer.subdifferential_distance(backend.array(zero), backend.array(g)))
    assert distance == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_cvxpy_solves_convex_problems_only():
    problem = Subproblem(np.zeros(3), np.ones(3), np.ones(3), 1.0, MCP(1.0, 3.0))
    with pytest.raises(ValueError, match="cvxpy solves convex subproblems only, got MCP"):
        solve(problem, "cvxpy")
