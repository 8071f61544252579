"""The nondegeneracy margin: cases built inside, on and outside the boundary of the subdifferential."""

from __future__ import annotations

import numpy as np
import plain
import pytest
from backends import DOUBLE, to_numpy
from examples import EXAMPLES, example_point

from ramda_theory.regularizers import NuclearNorm, SparseGroupLasso

double_precision = pytest.mark.parametrize("backend", DOUBLE, ids=str)


def boundary_gradient(regularizer, w, ratio, rng):
    """A gradient whose negative is, on every inactive piece, ``ratio`` times a point of the boundary of d psi."""
    lam = regularizer.weight
    if isinstance(regularizer, NuclearNorm):
        matrix = plain.matricised(regularizer, w)
        u, s, vh = np.linalg.svd(matrix)
        rank = int(np.sum(s > 1e-10))
        normal = u[:, rank:] @ rng.standard_normal((len(u) - rank, len(vh) - rank)) @ vh[rank:]
        g = -lam * u[:, :rank] @ vh[:rank] + ratio * lam * normal / np.linalg.norm(normal, 2)
        return plain.unmatricised(regularizer, g, w.shape)
    g = np.zeros(w.size)
    for piece in plain.pieces(regularizer, w.shape):
        direction = rng.standard_normal(len(piece))
        bound = lam * (np.sqrt(len(piece)) if getattr(regularizer, "size_scaled", False) else 1.0)
        if isinstance(regularizer, SparseGroupLasso):
            box, ball = regularizer.l1_ratio * lam, (1 - regularizer.l1_ratio) * bound
            on_boundary = box * np.sign(direction) + ball * direction / np.linalg.norm(direction)
            inside_group = np.where(w.ravel()[piece] == 0, ratio * box * np.sign(direction), 0)
            g[piece] = inside_group if np.any(w.ravel()[piece]) else ratio * on_boundary
        elif not np.any(w.ravel()[piece]):
            g[piece] = ratio * bound * direction / np.linalg.norm(direction)
    g = g.reshape(w.shape)
    # Where w is not zero, psi is differentiable: minus its gradient.
    return np.where(w == 0, g, g - to_numpy(regularizer.subdifferential_residual(w, g)))


@double_precision
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("regularizer", EXAMPLES, ids=str)
def test_margin_inside_on_and_outside_the_boundary(regularizer, ratio, backend):
    rng = np.random.default_rng(0)
    w = example_point(regularizer, rng)
    g = boundary_gradient(regularizer, w, ratio, rng)
    w_, g_ = backend.array(w), backend.array(g)
    assert float(regularizer.nondegeneracy_margin(w_, g_)) == pytest.approx(1 - ratio, abs=1e-12)
    distance = float(regularizer.subdifferential_distance(w_, g_))
    assert distance > 0.1 if ratio > 1 else distance < 1e-12


@double_precision
@pytest.mark.parametrize("regularizer", EXAMPLES, ids=str)
def test_margin_ignores_active_pieces(regularizer, backend):
    """A gradient that is large where w is not zero does not change the margin; without zeros it is 1."""
    rng = np.random.default_rng(1)
    w = example_point(regularizer, rng)
    g = boundary_gradient(regularizer, w, 0.5, rng)
    if isinstance(regularizer, NuclearNorm):
        g = g + 100 * to_numpy(regularizer.tangent(w, rng.standard_normal(w.shape)))
        full = rng.standard_normal(w.shape)
    else:
        g = np.where(w == 0, g, 100.0)
        full = np.where(w == 0, 1.0, w)
    assert float(regularizer.nondegeneracy_margin(backend.array(w), backend.array(g))) == pytest.approx(0.5, abs=1e-11)
    assert float(regularizer.nondegeneracy_margin(backend.array(full), backend.array(100 * g))) == 1
