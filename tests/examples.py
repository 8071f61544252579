"""One regularizer of every kind; for each a point that is zero on some pieces, and a subproblem with its solution."""

from __future__ import annotations

import numpy as np
import plain
from backends import to_numpy

from ramda_theory.regularizers import L1, MCP, SCAD, ElasticNet, GroupLasso, GroupMCP, NuclearNorm, SparseGroupLasso
from ramda_theory.subproblem import Subproblem, solve
from ramda_theory.subproblem.bisection import bisection_reference

MATRIX = (
    L1(0.7),
    ElasticNet(0.7, 0.4),
    MCP(0.7, 3.0),
    SCAD(0.7, 3.7),
    GroupLasso(0.7, (0,)),
    SparseGroupLasso(0.7, 0.3, (1,)),
    GroupMCP(0.7, 3.0, (0,)),
    NuclearNorm(0.7),
)
"""For matrices."""

EXAMPLES = (*MATRIX, GroupLasso(0.7, (-1, 0), size_scaled=False), NuclearNorm(0.7, (2, 0), (1,)))
"""Those, and two for arrays of three axes."""


def example_point(regularizer, rng: np.random.Generator) -> np.ndarray:
    """A point that is zero on a third of the pieces (nuclear norm: of rank 3)."""
    shape = (6, 8) if regularizer in MATRIX else (4, 6, 5)
    w = rng.standard_normal(shape)
    if isinstance(regularizer, NuclearNorm):
        singular = np.linalg.svd(plain.matricised(regularizer, w), compute_uv=False)
        return to_numpy(regularizer.prox(w, singular[3] / regularizer.weight))
    for number, piece in enumerate(plain.pieces(regularizer, shape)):
        if number % 3 == 0:
            w.ravel()[piece] = 0
    if isinstance(regularizer, SparseGroupLasso):
        w[:, ::2] = 0
    return w


def example_problem(regularizer, backend, seed=0):
    """Spread 10 in the metric (enough curvature for nonconvex psi), about half of the pieces zero at the solution."""
    rng = np.random.default_rng(seed)
    shape = (6, 8) if regularizer in MATRIX else (4, 6, 5)
    metric = backend.round(0.5 * 10 ** rng.uniform(0, 1, shape))
    anchor = backend.round(rng.standard_normal(shape))
    b = rng.standard_normal(shape) * np.sqrt(metric)
    for axis, n in enumerate(shape):  # pieces of unequal size, along whatever axes they lie
        b *= np.reshape(np.logspace(-0.7, 0, n), [n if a == axis else 1 for a in range(len(shape))])
    weight_sum = 1.0 if regularizer.convex else 0.2 / regularizer.weak_convexity
    b *= weight_sum * regularizer.weight / (0.4 * float(regularizer.critical_weight(b)))
    arrays = (backend.array(a) for a in (anchor, metric * anchor - b, metric))
    return Subproblem(*arrays, weight_sum, regularizer)


def reference(problem):
    """The solution of exactly these data in extended precision, or, for the nuclear norm, in float64 to 1e-13."""
    if isinstance(problem.regularizer, NuclearNorm):
        data = (to_numpy(a) for a in (problem.anchor, problem.grad_sum, problem.metric))
        wide = Subproblem(*data, problem.weight_sum, problem.regularizer)
        return solve(wide, "accelerated", tolerance=1e-14 * problem.magnitude, max_iter=3000).point
    return bisection_reference(problem).astype(float)
