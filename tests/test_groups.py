"""How entries form groups: axes from either end, no axis, every axis, labels; and the axes of a matricisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from backends import BACKENDS, DOUBLE, to_numpy

from ramda_theory.regularizers import L1, GroupLasso, GroupMCP, NuclearNorm, SparseGroupLasso


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
@pytest.mark.parametrize("dims", [(0,), (-1,), (0, 2), (2, -4), (1, 2, 3), (3, 2, 1, 0)])
@pytest.mark.parametrize(
    "make", [GroupLasso, lambda w, d: SparseGroupLasso(w, 0.4, d), lambda w, d: GroupMCP(w, 4.0, d)]
)
def test_axes_are_those_of_vector_norm(make, dims, backend):
    """The norms are torch.linalg.vector_norm(dim=dims); other ways to name the axes, or to order them, agree."""
    w = backend.array(np.random.default_rng(0).standard_normal((3, 4, 2, 5)))
    psi = make(0.6, dims)
    norms = torch.linalg.vector_norm(torch.tensor(to_numpy(w)), dim=dims, keepdim=True).numpy()
    assert np.allclose(to_numpy(psi.group_norms(w)), norms, rtol=1e-14, atol=0)
    other = make(0.6, tuple((dim % 4) - 4 for dim in reversed(dims)))
    assert np.array_equal(to_numpy(other.prox(w)), to_numpy(psi.prox(w)))
    assert np.array_equal(to_numpy(other.metric_prox(w, w * w + 1)), to_numpy(psi.metric_prox(w, w * w + 1)))
    if make is GroupLasso:
        assert psi.group_weights(w) == pytest.approx(0.6 * np.sqrt(np.prod([w.shape[dim] for dim in dims])))


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
def test_transposed_array_with_transposed_axes(backend):
    values = np.random.default_rng(1).standard_normal((3, 4, 5))
    w, turned = backend.array(values), backend.array(values.transpose(2, 0, 1))
    x = to_numpy(GroupLasso(0.5, (0, 2)).metric_prox(w, w * w + 0.1))
    y = to_numpy(GroupLasso(0.5, (1, 0)).metric_prox(turned, turned * turned + 0.1))
    assert np.allclose(x.transpose(2, 0, 1), y, rtol=8 * backend.eps, atol=0)


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
def test_no_axis_is_the_l1_norm(backend):
    rng = np.random.default_rng(2)
    w, g, diag = (backend.array(rng.standard_normal((4, 5))) for _ in range(3))
    diag = diag * diag + 0.01
    group, l1 = GroupLasso(0.3, ()), L1(0.3)
    assert float(group.value(w)) == pytest.approx(float(l1.value(w)), rel=1e-14)
    assert np.allclose(to_numpy(group.metric_prox(g, diag)), to_numpy(l1.metric_prox(g, diag)), rtol=1e-14, atol=0)
    assert float(group.subdifferential_distance(w, g)) == pytest.approx(float(l1.subdifferential_distance(w, g)))
    for ratio in (0.0, 1.0):
        mixed = SparseGroupLasso(0.3, ratio, ())
        assert np.allclose(to_numpy(mixed.prox(g)), to_numpy(l1.prox(g)), rtol=1e-14, atol=0)


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
def test_labels_are_the_columns_they_name(backend):
    """Labels that name the columns of a matrix give what ``dims=(0,)`` gives; unequal groups have unequal weights."""
    rng = np.random.default_rng(3)
    w, g = rng.standard_normal((2, 6, 5))
    diag = rng.uniform(0.1, 3, (6, 5))
    names = np.array([4, -7, 100, 0, 3])
    by_axes, by_labels = GroupLasso(0.4), GroupLasso(0.4, labels=tuple(np.tile(names, 6)))
    results = []
    for psi, shape in ((by_labels, (30,)), (by_axes, (6, 5))):
        w_, g_, diag_ = (backend.array(a.reshape(shape)) for a in (w, g, diag))
        parts = psi.prox(w_), psi.metric_prox(w_, diag_), psi.subdifferential_residual(w_, g_)
        results.append([to_numpy(part).reshape(6, 5) for part in parts] + [to_numpy(psi.group_norms(w_)).ravel()])
    results[1][-1] = results[1][-1][np.argsort(names)]
    for a, b in zip(*results, strict=True):
        assert np.allclose(a, b, rtol=8 * backend.eps, atol=8 * backend.eps)
    unequal = GroupLasso(2.0, labels=(5, 1, 5, 5, 1))
    assert np.allclose(to_numpy(unequal.group_weights(backend.array(np.ones(5)))), 2 * np.sqrt([2, 3]))


def test_memory_maps_are_numpy_arrays(tmp_path):
    """Labels need NumPy's own functions, for its subclasses too."""
    w = np.random.default_rng(6).standard_normal(5)
    mapped = np.memmap(tmp_path / "w", dtype=float, mode="w+", shape=(5,))
    mapped[:] = w
    psi = GroupLasso(0.4, labels=(1, 0, 1, 1, 0))
    assert np.array_equal(psi.prox(mapped), psi.prox(w))
    assert np.array_equal(psi.metric_prox(mapped, mapped * mapped), psi.metric_prox(w, w * w))


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
@pytest.mark.parametrize(
    ("shape", "rows", "columns", "einsum"),
    [
        ((3, 4, 5), (0,), (1, 2), "abc->abc"),
        ((3, 4, 5), (1,), (0, 2), "abc->bac"),
        ((3, 4, 5), (-1, 0), (1,), "abc->cab"),
        ((2, 3, 2, 3), (0, 2), (1, 3), "abcd->acbd"),
        ((2, 3, 2, 3), (3,), (-2, 1, 0), "abcd->dcba"),
    ],
)
def test_matricisation(shape, rows, columns, einsum, backend):
    """The matrix is the one the named axes make, and every result is folded back to the array's own axes."""
    rng = np.random.default_rng(4)
    w, g = (backend.round(rng.standard_normal(shape)) for _ in range(2))
    psi, of_matrix = NuclearNorm(0.7, rows, columns), NuclearNorm(0.7)
    size = int(np.prod([shape[axis] for axis in rows]))

    def matrix(a):
        return np.einsum(einsum, a).reshape(size, -1)

    assert np.array_equal(to_numpy(psi.matrix(backend.array(w))), matrix(w))
    w_, g_ = backend.array(w, "rotated"), backend.array(g)
    m, n = backend.array(matrix(w)), backend.array(matrix(g))
    close = {"rtol": 32 * backend.eps, "atol": 32 * backend.eps}
    assert np.allclose(float(psi.value(w_)), float(of_matrix.value(m)), rtol=1e-14)
    assert np.allclose(matrix(to_numpy(psi.prox(w_))), to_numpy(of_matrix.prox(m)), **close)
    low, low_m = psi.prox(w_, 2.0), of_matrix.prox(m, 2.0)
    assert psi.structure(low) == of_matrix.structure(low_m) == psi.prox_structure(w_, 2.0)[1]
    residual, expected = psi.subdifferential_residual(low, g_), of_matrix.subdifferential_residual(low_m, n)
    assert np.allclose(matrix(to_numpy(residual)), to_numpy(expected), **close)
    for project in ("tangent", "column_part"):
        part, expected = getattr(psi, project)(low, g_), getattr(of_matrix, project)(low_m, n)
        assert np.allclose(matrix(to_numpy(part)), to_numpy(expected), **close)
        assert np.allclose(to_numpy(getattr(psi, project)(low, part)), to_numpy(part), **close)  # a projection


@pytest.mark.parametrize("backend", DOUBLE, ids=str)
def test_tangent_and_column_part(backend):
    """Tangents are u a^T + b v^T; moves in the column space keep the rank at any length."""
    rng = np.random.default_rng(5)
    u, v = rng.standard_normal((6, 2)), rng.standard_normal((9, 2))
    w, psi = u @ v.T, NuclearNorm(1.0)
    a, b, noise = rng.standard_normal((9, 2)), rng.standard_normal((6, 2)), rng.standard_normal((6, 9))
    tangent = u @ a.T + b @ v.T
    assert np.allclose(to_numpy(psi.tangent(backend.array(w), backend.array(tangent))), tangent, atol=1e-12)
    normal = noise - to_numpy(psi.tangent(backend.array(w), backend.array(noise)))
    assert np.allclose(u.T @ normal, 0, atol=1e-12) and np.allclose(normal @ v, 0, atol=1e-12)
    move = to_numpy(psi.column_part(backend.array(w), backend.array(noise)))
    assert psi.structure(backend.array(w + 1e3 * move)).rank == 2
    assert np.allclose(u.T @ (noise - move), 0, atol=1e-12)
