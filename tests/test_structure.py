"""Structures: what is equal, what lies below what, how far apart, how many dimensions, and where they are read from."""

from __future__ import annotations

import numpy as np
import plain
import pytest
from backends import BACKENDS, DOUBLE, HALF, TORCH32, to_numpy
from cases import KINDS, cases
from hypothesis import given
from hypothesis import strategies as st

from ramda_theory.regularizers import L1, MCP, SCAD, GroupLasso, GroupMCP, NuclearNorm, SparseGroupLasso
from ramda_theory.structure import GroupSupport, Pattern, Rank, SignPattern, numerical_rank


def signs(*values):
    return SignPattern(np.array(values, dtype=np.int8))


def test_sign_patterns():
    a, b, c = signs(1, 0, -1), signs(1, 1, -1), signs(1, 0, 1)
    assert a == signs(1, 0, -1) and hash(a) == hash(signs(1, 0, -1)) and a != b and a != c
    assert a <= b and not b <= a and not a <= c and not c <= a and a <= a
    assert signs(0, 0, 0) <= a
    assert (a.distance(b), a.distance(c), b.distance(c), a.distance(a)) == (1, 1, 2, 0)
    assert (a.dimension, a.count, list(a.mask)) == (2, 2, [True, False, True])


def test_group_supports():
    sizes = np.array([3, 1, 2])
    a, b = (
        GroupSupport(np.array([1, 0, 1], dtype=np.int8), sizes),
        GroupSupport(np.array([1, 1, 1], dtype=np.int8), sizes),
    )
    assert (a.dimension, b.dimension, a.count) == (5, 6, 2)
    assert a <= b and not b <= a and a.distance(b) == 1
    assert GroupSupport(np.ones((1, 4), dtype=np.int8), 7).dimension == 28
    assert repr(a) == "GroupSupport(2 of 3 nonzero, dimension 5)"


def test_ranks():
    a, b = Rank(2, 5, 7), Rank(3, 5, 7)
    assert a == Rank(2, 5, 7) and a != b and len({a, Rank(2, 5, 7), b}) == 2
    assert a <= b and not b <= a and a <= a
    assert (a.distance(b), b.distance(a), a.count) == (1, 1, 2)
    assert (Rank(0, 5, 7).dimension, a.dimension, Rank(5, 5, 7).dimension) == (0, 20, 35)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (signs(1, 0), signs(1, 0, 0)),
        (signs(1, 0), GroupSupport(np.array([1, 0], dtype=np.int8))),
        (signs(1, 0), Rank(1, 2, 2)),
        (Rank(1, 2, 3), Rank(1, 3, 2)),
        (Rank(1, 2, 2), signs(1, 0)),
    ],
)
def test_structures_of_different_kinds_or_shapes(one, other):
    """They are unequal, and have neither order nor distance."""
    assert one != other
    with pytest.raises(TypeError, match="not structures of one kind and shape"):
        one.distance(other)
    with pytest.raises(TypeError, match="not structures of one kind and shape"):
        _ = one <= other


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
def test_read_from_exact_zeros(backend):
    """The smallest number the dtype has counts as nonzero; -0.0 does not."""
    tiny = float(to_numpy(backend.array(2.0**-149)))
    w = backend.array([[tiny, 0.0, -0.0], [0.0, -3.0, 0.0]])
    assert np.array_equal(L1(1.0).structure(w).pattern, [[1, 0, 0], [0, -1, 0]])
    assert np.array_equal(SparseGroupLasso(1.0, 0.5).structure(w).pattern, [[1, 0, 0], [0, -1, 0]])
    assert np.array_equal(GroupLasso(1.0).structure(w).pattern, [[1, 1, 0]])
    assert np.array_equal(GroupLasso(1.0, (1,)).structure(w).pattern, [[1], [1]])
    assert np.array_equal(SparseGroupLasso(1.0, 0.5, (-2,)).group_support(w).pattern, [[1, 1, 0]])
    assert GroupLasso(1.0).structure(w).dimension == 4
    labels = GroupLasso(1.0, labels=(7, -1, 7, 3))
    support = labels.structure(backend.array([0.0, 0.0, tiny, 0.0]))
    assert np.array_equal(support.pattern, [0, 0, 1]) and support.dimension == 2


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
def test_branches_of_nonconvex_penalties(backend):
    """MCP: 1 up to gamma weight, then 2; SCAD: 1 up to weight, 2 up to a weight, then 3; breakpoints go inwards."""
    w = backend.array([0.0, 0.5, -1.0, -1.5, 2.0, 2.5])
    assert list(MCP(0.5, 3.0).structure(w).pattern) == [0, 1, -1, -1, 2, 2]
    assert list(SCAD(0.5, 4.0).structure(w).pattern) == [0, 1, -2, -2, 2, 3]
    columns = backend.array([[0.0, 3.0, 6.0], [0.0, 4.0, 8.0]])
    psi = GroupMCP(2.5, 2.0, size_scaled=False)
    assert np.array_equal(psi.structure(columns).pattern, [[0, 1, 2]])  # norms 0, 5 (the breakpoint), 10
    assert psi.structure(columns) != psi.structure(0.1 * columns)


def test_branch_of_float32_is_decided_in_float64():
    """float32(0.3) lies above 0.3, the float64 breakpoint."""
    w = TORCH32.array([0.3])
    assert list(MCP(0.1, 3.0 * (1 - 2.0**-50)).structure(w).pattern) == [2]


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_structure_of_a_proximal_step(kind, backend, data):
    """From loops over the pieces; for the rank, the number of singular values above the threshold."""
    case = data.draw(cases(kind))
    regularizer, z = case.regularizer, backend.array(case.z, case.layout)
    x, produced = regularizer.prox_structure(z, case.step)
    structure = regularizer.structure(x)
    values = to_numpy(x)
    if kind == "NuclearNorm":
        singular = np.linalg.svd(plain.matricised(regularizer, case.z), compute_uv=False)
        threshold = case.step * regularizer.weight
        if np.all(np.abs(singular - threshold) > 1e-9 * np.max(singular, initial=0.0)) and threshold > 0:
            assert produced == structure and structure.rank == np.sum(singular > threshold)
        assert (structure.rows, structure.columns) == plain.matricised(regularizer, case.z).shape
        return
    assert produced is None
    if isinstance(regularizer, (GroupLasso, GroupMCP)):
        expected = [bool(np.any(values.ravel()[piece])) for piece in plain.pieces(regularizer, case.z.shape)]
        sizes = [len(piece) for piece in plain.pieces(regularizer, case.z.shape)]
        assert list(structure.mask.ravel()) == expected or not case.z.size
        assert structure.dimension == sum(n for n, nonzero in zip(sizes, expected, strict=True) if nonzero)
    else:
        assert np.array_equal(np.sign(structure.pattern), np.sign(values))
        assert structure.dimension == np.count_nonzero(values)
    assert isinstance(structure, Pattern) and structure.pattern.dtype == np.int8


@pytest.mark.parametrize("backend", (*BACKENDS, *HALF), ids=str)
@pytest.mark.parametrize("shape", [(6, 6), (40, 90), (300, 200)])
def test_rank_at_rounding_level_of_the_dtype(shape, backend):
    """Rounding a matrix of rank 3 to its dtype does not change its numerical rank, nor does a scale of 1e-3 or 1e3."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((shape[0], 3)) @ rng.standard_normal((3, shape[1]))
    for scale in (1e-3, 1.0, 1e3):
        assert NuclearNorm(1.0).structure(backend.array(scale * w)).rank == 3
    assert NuclearNorm(1.0).structure(backend.array(0 * w)).rank == 0
    assert NuclearNorm(1.0).structure(backend.array(rng.standard_normal(shape))).rank >= 0.9 * min(shape)


def test_numerical_rank():
    assert numerical_rank(np.array([]), (0, 3), 2.0**-52) == 0
    assert numerical_rank(np.array([1.0, 1e-3, 1e-17]), (3, 3), 2.0**-52) == 2
    assert numerical_rank(np.array([1.0, 1e-3, 1e-8]), (3, 3), 2.0**-23) == 2
    assert numerical_rank(np.array([np.nan, np.nan]), (2, 2), 2.0**-52) == 2


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
@pytest.mark.parametrize("factor", [1.0, 4096.0])
def test_singular_value_at_the_threshold_is_zero(backend, factor):
    """By the Gram matrix (a threshold near the largest singular value) and by the SVD (far below it) alike."""
    z = backend.array(np.diag([2 * factor, 1.0, 0.0]))
    x, rank = NuclearNorm(1.0).prox_structure(z)
    assert rank == Rank(1, 3, 3)
    assert np.allclose(to_numpy(x), np.diag([2 * factor - 1, 0, 0]), rtol=1e-14, atol=0)
