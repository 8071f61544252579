"""A NaN stays in its own piece, is never a zero, and is visible in every total."""

from __future__ import annotations

import warnings

import numpy as np
import plain
import pytest
from backends import BACKENDS, DOUBLE, to_numpy
from examples import EXAMPLES, example_point

from ramda_theory.regularizers import NuclearNorm, SparseGroupLasso
from ramda_theory.structure import Rank


def with_nan(regularizer):
    """A point with one NaN entry, and which entries share its piece."""
    w = example_point(regularizer, np.random.default_rng(0))
    spoiled = w.copy()
    spoiled.ravel()[7] = np.nan
    piece = next(piece for piece in plain.pieces(regularizer, w.shape) if 7 in piece)
    inside = np.zeros(w.size, dtype=bool)
    inside[piece] = True
    return w, spoiled, inside.reshape(w.shape)


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
@pytest.mark.parametrize("regularizer", EXAMPLES, ids=str)
def test_nan_in_one_piece(regularizer, backend):
    w, spoiled, inside = with_nan(regularizer)
    diag = backend.array(np.full(w.shape, 3.0))
    maps = {"prox": lambda z: regularizer.prox(z, 0.5)}
    if regularizer.has_metric_prox(diag, 0.5):
        maps["metric_prox"] = lambda z: regularizer.metric_prox(z, diag, 0.5)
    for name, prox in maps.items():
        clean, got = to_numpy(prox(backend.array(w))), to_numpy(prox(backend.array(spoiled)))
        assert np.all(np.isnan(got[inside])), name
        assert np.array_equal(got[~inside], clean[~inside]), name


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
@pytest.mark.parametrize("regularizer", EXAMPLES, ids=str)
def test_nan_in_the_metric(regularizer, backend):
    w, spoiled, inside = with_nan(regularizer)
    diag = backend.array(np.where(np.isnan(spoiled), np.nan, 3.0))
    if regularizer.has_metric_prox(backend.array(np.full(w.shape, 3.0))) and regularizer.convex:
        z = backend.array(np.where(w == 0, 5.0, 5 * w))
        got = to_numpy(regularizer.metric_prox(z, diag))
        assert np.all(np.isnan(got[np.isnan(spoiled)])) and not np.any(got[inside] == 0)
        assert not np.any(np.isnan(got[~inside]))


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
@pytest.mark.parametrize("regularizer", EXAMPLES, ids=str)
def test_nan_in_totals(regularizer, backend):
    w, spoiled, inside = with_nan(regularizer)
    good, bad = backend.array(w), backend.array(spoiled)
    assert np.isnan(float(regularizer.value(bad)))
    assert np.isnan(float(regularizer.critical_weight(bad)))
    assert np.isnan(float(regularizer.subdifferential_distance(good, bad)))
    assert np.isnan(float(regularizer.subdifferential_distance(bad, good)))
    residual = to_numpy(regularizer.subdifferential_residual(good, bad))
    assert np.all(np.isnan(residual[np.isnan(spoiled)])) and not np.any(np.isnan(residual[~inside]))


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
@pytest.mark.parametrize("regularizer", EXAMPLES, ids=str)
def test_nan_is_not_structure(regularizer, backend):
    """A piece that holds a NaN counts as nonzero, a matrix as of full rank, and reading it warns of nothing."""
    w, spoiled, _ = with_nan(regularizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        structure = regularizer.structure(backend.array(spoiled))
        clean = regularizer.structure(backend.array(w))
    if isinstance(regularizer, NuclearNorm):
        assert isinstance(structure, Rank) and structure.rank == min(structure.rows, structure.columns)
        return
    position = np.argwhere(np.isnan(spoiled))[0]
    if not isinstance(regularizer, SparseGroupLasso):
        position = tuple(0 if n == 1 else i for i, n in zip(position, structure.pattern.shape, strict=True))
    expected = clean.mask.copy()
    expected[tuple(position)] = True
    assert np.array_equal(structure.mask, expected)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("backend", DOUBLE, ids=str)
@pytest.mark.parametrize("regularizer", EXAMPLES, ids=str)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_infinity_is_not_a_zero(regularizer, backend, value):
    w, spoiled, inside = with_nan(regularizer)
    z = backend.array(np.where(np.isnan(spoiled), value, spoiled))
    got = to_numpy(regularizer.prox(z, 0.5))
    assert not np.any(np.isfinite(got[np.isnan(spoiled)]))
    if not isinstance(regularizer, NuclearNorm):
        assert np.array_equal(got[~inside], to_numpy(regularizer.prox(backend.array(w), 0.5))[~inside])
