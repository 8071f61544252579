"""One regularizer of every kind, and a point of each that is zero on some of its pieces."""

from __future__ import annotations

import numpy as np
import plain
from backends import to_numpy

from ramda_theory.regularizers import L1, MCP, SCAD, ElasticNet, GroupLasso, GroupMCP, NuclearNorm, SparseGroupLasso

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
