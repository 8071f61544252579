"""Soft-thresholding of singular values by bases that are carried on and by products, against float64 SVDs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from backends import BACKENDS, DOUBLE, NUMPY32, TORCH32, to_numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from ramda_theory.arrays import namespace
from ramda_theory.regularizers import L1, NuclearNorm
from ramda_theory.regularizers.matrix_products import minimax_quintic, polynomials, shrink_by_products
from ramda_theory.regularizers.singular_values import eigh
from ramda_theory.regularizers.threshold_sequence import filtered
from ramda_theory.regularizers.whole_basis import shrink_in_basis


def by_svd(z, threshold):
    """The thresholded matrix and its rank, in float64."""
    u, s, vh = np.linalg.svd(z, full_matrices=False)
    return (u * np.maximum(s - threshold, 0)) @ vh, int(np.sum(s > threshold))


def low_rank(rng, rows, columns, rank, noise=0.3):
    """``rank`` singular values of 5 to 10 and a bulk of noise of at most about 2 ``noise``."""
    left, _ = np.linalg.qr(rng.standard_normal((rows, rank)))
    right, _ = np.linalg.qr(rng.standard_normal((columns, rank)))
    return (left * np.linspace(5, 10, rank)) @ right.T + noise * rng.standard_normal((rows, columns)) / np.sqrt(columns)


# -- decompositions that LAPACK gives up -------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [*DOUBLE, NUMPY32, TORCH32], ids=str)
@pytest.mark.parametrize("rows", [64, 128, 256])
def test_rows_of_sizes_that_differ_by_many_orders_of_magnitude_are_decomposed(backend, rows):
    """torch's eigh fails for some of these Gram matrices in float32, with an error or with NaN."""
    for seed in range(6):
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(rows, rows + 50, generator=generator) * 10 ** (-24 * torch.rand(rows, 1, generator=generator))
        z[torch.rand(rows, generator=generator) < 0.3] = 0
        square = z.numpy() @ z.numpy().T
        values, vectors = map(to_numpy, eigh(namespace(a=backend.array(square)), backend.array(square)))
        size = backend.eps * np.max(square)
        assert np.linalg.norm((vectors * values) @ vectors.T - square) <= rows * size
        assert np.linalg.norm(vectors.T @ vectors - np.eye(rows)) <= rows * backend.eps


class Stubborn:
    """An array namespace whose first eigh fails."""

    def __init__(self, xp, fail):
        self._xp, self._fail, self.linalg, self.seen = xp, fail, self, []

    def __getattr__(self, name):
        return getattr(self._xp, name)

    def eigh(self, matrix):
        self.seen.append(matrix.dtype)
        return self._fail(matrix) if len(self.seen) == 1 else self._xp.linalg.eigh(matrix)


@pytest.mark.parametrize("backend", [NUMPY32, TORCH32], ids=str)
@pytest.mark.parametrize("how", ["an error", "NaN"])
def test_a_decomposition_is_tried_again_in_float64(backend, how):
    z = backend.array(np.diag([2.0, 1.0]))
    xp = namespace(z=z)

    def fail(matrix):
        if how == "an error":
            raise (np.linalg.LinAlgError if xp is np else torch.linalg.LinAlgError)("no convergence")
        values, vectors = xp.linalg.eigh(matrix)
        return values, xp.full_like(vectors, np.nan)

    stubborn = Stubborn(xp, fail)
    values, vectors = eigh(stubborn, z)
    assert values.dtype == vectors.dtype == z.dtype and stubborn.seen == [z.dtype, xp.float64]
    np.testing.assert_array_equal(to_numpy(values), [1.0, 2.0])


@pytest.mark.parametrize("backend", [*DOUBLE, NUMPY32, TORCH32], ids=str)
def test_no_other_error_is_hidden_and_float64_is_tried_once(backend):
    z = backend.array(np.eye(2))
    errors = [ValueError, RuntimeError]
    if backend in DOUBLE:
        errors += [np.linalg.LinAlgError, torch.linalg.LinAlgError]
    for error in errors:

        def fail(matrix, error=error):
            raise error("mine")

        stubborn = Stubborn(namespace(z=z), fail)
        with pytest.raises(error, match="mine"):
            eigh(stubborn, z)
        assert len(stubborn.seen) == 1


# -- from one basis to the next --------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("shape", [(60, 90), (90, 60)])
@pytest.mark.parametrize("backend", [*DOUBLE, NUMPY32, TORCH32], ids=str)
def test_a_sequence_is_within_the_errors_it_tells(backend, shape, exact):
    """While the matrix moves and its rank changes, for one decomposition at the start; the ranks are those of SVDs."""
    rng = np.random.default_rng(0)
    z, psi = low_rank(rng, *shape, 8), NuclearNorm(1.0)
    sequence = psi.prox_sequence(exact=exact)
    slack = 1e-3 if not exact else 3e-5
    ranks = set()
    for step in range(12):
        z = z + 0.02 * rng.standard_normal(shape)
        threshold = 2.0 + 0.5 * step
        given = backend.round(z)
        x, structure, error = sequence(backend.array(z), threshold, slack)
        assert sequence.confirmed()
        expected, rank = by_svd(given, threshold)
        assert np.linalg.norm(to_numpy(x) - expected) <= error + 20 * backend.eps * np.linalg.norm(given)
        assert error <= (slack if exact else 30 * slack)
        assert structure.rank == rank and (structure.rows, structure.columns) == shape
        ranks.add(rank)
    assert len(ranks) > 3 and 0 < min(ranks) < 8
    assert sequence.decompositions <= 3


@pytest.mark.parametrize("backend", [*DOUBLE, TORCH32], ids=str)
def test_what_the_basis_misses_is_found_out(backend):
    """A basis at right angles to the largest singular vector: not confirmed, and right when asked again."""
    rng = np.random.default_rng(1)
    left, _ = np.linalg.qr(rng.standard_normal((40, 40)))
    right, _ = np.linalg.qr(rng.standard_normal((50, 40)))
    values = np.concatenate([[9.0, 8.0, 7.0, 6.0], np.linspace(1.0, 0.1, 36)])
    z = backend.array((left * values) @ right.T)
    sequence = NuclearNorm(1.0).prox_sequence(backend.array(left[:, 1:8]))
    x, structure, error = sequence(z, 3.0, 1e-3)
    assert structure.rank == 3 and error <= 1e-3 and sequence.decompositions == 0
    assert not sequence.confirmed()
    x, structure, _ = sequence(z, 3.0, 1e-3)
    assert structure.rank == 4 and sequence.decompositions == 1 and sequence.confirmed()
    assert np.linalg.norm(to_numpy(x) - by_svd(to_numpy(z), 3.0)[0]) <= 1e-3


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 0.05, 0.3, 0.9, 1.5]), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=60)
def test_any_matrix_any_threshold_any_basis(seed, share, rows, columns):
    """Also of exact rank, with equal singular values, and from bases that have nothing to do with it."""
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, min(rows, columns) + 1))
    z = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns)) * 10.0 ** rng.integers(-3, 4)
    threshold = share * float(np.linalg.norm(z, 2))
    basis = rng.standard_normal((min(rows, columns), int(rng.integers(1, 4))))
    for exact in (False, True):
        sequence = NuclearNorm(1.0).prox_sequence(basis, exact=exact)
        slack = 1e-9 * float(np.linalg.norm(z))
        for _ in range(4):
            x, structure, error = sequence(z, threshold, slack)
            if sequence.confirmed():
                break
        else:
            raise AssertionError("never confirmed")
        expected, _ = by_svd(z, threshold)
        assert np.linalg.norm(x - expected) <= error + 2e-5 * threshold * (structure.rank < min(rows, columns)) + slack


@pytest.mark.parametrize("kind", ["even", "low rank and noise", "graded", "one small"])
@pytest.mark.parametrize("shape", [(64, 96), (40, 30)])
def test_float32_decompositions_are_as_exact_as_float32_allows(shape, kind):
    """At full and low rank, small thresholds and large: within four roundings of the matrix of the float64 SVD."""
    rng = np.random.default_rng(0)
    u, s, vh = np.linalg.svd(rng.standard_normal(shape) / np.sqrt(shape[1]), full_matrices=False)
    s = {"even": s, "low rank and noise": 0.01 * s, "graded": np.logspace(0, -7, len(s)), "one small": s.copy()}[kind]
    if kind == "low rank and noise":
        s[:5] += 2.0
    if kind == "one small":
        s[-1] = 1e-4
    z = torch.tensor((u * s) @ vh, dtype=torch.float32)
    slack = 4 * torch.finfo(torch.float32).eps * float(torch.linalg.vector_norm(z))
    single = 0
    for threshold in (1e-5, 5e-4, 1e-2, 0.1, 0.5):
        sequence = NuclearNorm(1.0).prox_sequence(exact=True)
        short = z if shape[0] <= shape[1] else z.T
        single += sequence._refined(namespace(z=z), short, threshold, slack) is not None
        x, structure, error = sequence(z, threshold, slack)
        expected, rank = by_svd(z.double().numpy(), threshold)
        assert np.linalg.norm(x.numpy() - expected) <= slack and error <= slack
        assert structure.rank == rank
    assert single >= 2 or kind != "even"  # most of it was found in float32


def test_a_basis_becomes_narrow_when_the_rank_falls():
    rng = np.random.default_rng(2)
    z, sequence = low_rank(rng, 120, 150, 40, noise=0.01), NuclearNorm(1.0).prox_sequence()
    sequence(z, 1.0, 1e-3)
    wide = sequence.basis.shape[1]
    x, structure, error = sequence(z, 9.5, 1e-3)
    assert wide >= 40 > 2 * structure.rank > 0 and sequence.basis.shape[1] <= 2 * structure.rank + 4
    assert sequence.decompositions == 1 and sequence.confirmed()
    assert np.linalg.norm(x - by_svd(z, 9.5)[0]) <= error + 1e-9


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("backend", [*DOUBLE, NUMPY32, TORCH32], ids=str)
def test_a_threshold_that_falls_far_below_the_largest_value_does_not_overflow(backend, exact):
    """As after a restart of a network's training: the Ritz values of the old basis lie nine decades apart."""
    rng = np.random.default_rng(0)
    left, _ = np.linalg.qr(rng.standard_normal((64, 64)))
    right, _ = np.linalg.qr(rng.standard_normal((96, 64)))
    z = (left * np.concatenate([[1.9, 1.5, 0.9, 0.3, 0.2, 0.08], np.logspace(-4, -6, 58)])) @ right.T
    small, _ = np.linalg.qr(left[:, 6:] @ rng.standard_normal((58, 5)))
    basis, image = np.hstack([small, left[:, 5::-1]]), z @ z.T @ np.hstack([small, left[:, 5::-1]])
    values = (basis * image).sum(axis=0)
    assert values[-1] / values[0] > 1e9
    matrix, given = backend.array(z), backend.array(basis)
    better = filtered(namespace(z=given), matrix, given, backend.array(image), backend.array(values), 4)
    assert np.allclose(to_numpy(better).T @ to_numpy(better), np.eye(11), atol=20 * backend.eps)
    sequence = NuclearNorm(1.0).prox_sequence(given, exact=exact)
    for threshold in (3e-5, 2e-5, 1e-2):
        for _ in range(4):
            x, structure, error = sequence(matrix, threshold, 1e-6)
            if sequence.confirmed():
                break
        expected, rank = by_svd(to_numpy(matrix), threshold)
        assert np.linalg.norm(to_numpy(x) - expected) <= error + 1e-6 and structure.rank == rank


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("scale", [1e-33, 1e-25, 1e-19, 1.0, 1e15, 1e19, 1e30])
@pytest.mark.parametrize("backend", [*DOUBLE, NUMPY32, TORCH32], ids=str)
def test_neither_the_scale_nor_what_the_basis_misses_matters(backend, scale, exact):
    """Squares of singular values would underflow or overflow; then one that is 10^5 times as large comes up."""
    rng = np.random.default_rng(0)
    z, sequence = low_rank(rng, 60, 80, 5, noise=0.02), NuclearNorm(1.0).prox_sequence(exact=exact)
    large = 1e5 * np.outer(rng.standard_normal(60), rng.standard_normal(80)) / 70.0
    for step in range(5):
        z = z + 0.01 * rng.standard_normal(z.shape) + (large if step == 3 else 0.0)
        matrix = backend.array(z * scale)
        given, size = to_numpy(matrix).astype(np.float64) / scale, float(np.linalg.norm(z))
        for _ in range(4):
            x, structure, error = sequence(matrix, scale, 1e-5 * size * scale)
            if sequence.confirmed():
                break
        expected, rank = by_svd(given, 1.0)
        found = to_numpy(x).astype(np.float64) / scale
        assert np.linalg.norm(found - expected) <= error / scale + 100 * backend.eps * size and structure.rank == rank


@pytest.mark.parametrize("backend", [NUMPY32, TORCH32], ids=str)
def test_values_near_the_threshold_are_found_beside_others_that_are_far_above(backend):
    """As in training: what is kept spans two decades, and float32's rounding is all the slack there is."""
    rng = np.random.default_rng(0)
    left, _ = np.linalg.qr(rng.standard_normal((200, 200)))
    right, _ = np.linalg.qr(rng.standard_normal((300, 200)))
    values = np.concatenate([np.geomspace(1.7, 0.02, 30), np.linspace(0.0095, 0.002, 170)])
    sequence, z = NuclearNorm(1.0).prox_sequence(exact=True), (left * values) @ right.T
    for _ in range(6):
        z = z + 1e-5 * rng.standard_normal(z.shape)
        matrix = backend.array(z)
        slack = 4 * backend.eps * float(np.linalg.norm(z))
        x, structure, error = sequence(matrix, 0.0085, slack)
        expected, rank = by_svd(to_numpy(matrix).astype(float), 0.0085)
        assert sequence.confirmed() and structure.rank == rank
        assert error <= slack and np.linalg.norm(to_numpy(x) - expected) <= 2 * slack
    assert sequence.decompositions == 1  # the first


@pytest.mark.parametrize("backend", [NUMPY32, TORCH32], ids=str)
def test_inexact_sequences_resolve_thresholds_that_float32_squares_do_not(backend):
    """ADMM's, where the threshold is a thousandth of the norm: squares below eps ||Z||^2 come from float64 products."""
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.standard_normal((n, 100)))[0] for n in (100, 160))
    singular = np.concatenate([[4.5, 1.8, 0.6], np.geomspace(0.02, 0.002, 10), np.geomspace(8e-4, 1e-5, 87)])
    sequence, threshold = NuclearNorm(1.0).prox_sequence(), 0.0014
    for step in range(5):
        z = (u * singular) @ v.T + 1e-5 * step * rng.standard_normal((100, 160))
        x, structure, _ = sequence(backend.array(z), threshold, 2e-5)
        exact_u, s, vh = np.linalg.svd(z, full_matrices=False)
        exact = (exact_u * np.maximum(s - threshold, 0)) @ vh
        assert structure.rank == np.sum(s > threshold)
        assert np.linalg.norm(to_numpy(x) - exact) <= 30 * 2e-5
    assert sequence.decompositions == 1  # the first


@pytest.mark.parametrize("share", [1e-5, 1e-6])
@pytest.mark.parametrize("kept", [10, 60])
def test_exact_sequences_at_thresholds_near_float32s_rounding(share, kept):
    """ProxSGD's at a small learning rate: rank and point of an SVD in float64, within eight roundings."""
    rng = np.random.default_rng(1)
    u, v = (np.linalg.qr(rng.standard_normal((n, 80)))[0] for n in (80, 120))
    singular = np.concatenate([np.geomspace(1.0, 3 * share, kept), np.geomspace(0.3 * share, 1e-9, 80 - kept)])
    z = ((u * singular) @ v.T).astype(np.float32)
    slack = 8 * float(np.finfo(np.float32).eps) * float(np.linalg.norm(z))
    exact_u, s, vh = np.linalg.svd(z.astype(np.float64), full_matrices=False)
    exact = (exact_u * np.maximum(s - share, 0)) @ vh
    sequence = NuclearNorm(1.0).prox_sequence(exact=True)
    for _ in range(2):
        x, structure, _ = sequence(z, share, slack)
        assert structure.rank == np.sum(s > share)
        assert np.linalg.norm(x - exact) <= slack


@pytest.mark.parametrize("threshold", [1e-6, 1e-7, 1e-9])
@pytest.mark.parametrize("exact", [True, False])
def test_rounding_of_products_is_not_taken_for_rank(threshold, exact):
    """A slack that products meet says nothing about singular values below the root of eps."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((80, 3)) @ rng.standard_normal((3, 120))
    _, structure, _ = NuclearNorm(1.0).prox_sequence(exact=exact)(z, threshold, 1e-4)
    assert structure.rank == 3


# -- from all singular vectors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["even", "graded", "few below"])
@pytest.mark.parametrize("backend", [*DOUBLE, TORCH32], ids=str)
def test_products_make_up_for_what_singular_vectors_have_changed(backend, kind):
    """To second order, which the error tells, whatever is below the threshold; and the rank is exact."""
    rng = np.random.default_rng(0)
    u, s, vh = np.linalg.svd(rng.standard_normal((40, 60)) / 8.0, full_matrices=False)
    s = {"even": s, "graded": np.logspace(0.5, -3, 40), "few below": np.r_[s[:35] + 1.0, 1e-4 * s[35:]]}[kind]
    threshold = {"even": 0.4, "graded": 0.02, "few below": 5e-2}[kind]
    noise, taken = rng.standard_normal((40, 60)) / 60.0, 0
    for change in (1e-1, 1e-2, 1e-3, 1e-4, 0.0):
        z = backend.round((u * s) @ vh + change * threshold * noise)
        given = backend.array(z)
        size = float(np.linalg.norm(z))
        found = shrink_in_basis(namespace(z=given), given, backend.array(u), threshold, 1e-2 * threshold)
        if found is None:
            assert change >= 1e-1
            continue
        x, rank, error = found
        expected, exact = by_svd(z, threshold)
        assert rank == exact
        assert np.linalg.norm(to_numpy(x) - expected) <= 2 * error + 20 * backend.eps * size
        assert np.sum(np.linalg.svd(to_numpy(x), compute_uv=False) > 60 * backend.eps * s[0]) == rank
        assert error <= max((10 * change) ** 2 * threshold, 100 * backend.eps * threshold * np.sqrt(40))
        taken += 1
    assert taken >= 4


@pytest.mark.parametrize("guess", [False, True])
def test_a_basis_of_another_matrix_or_of_none_is_refused(guess):
    rng = np.random.default_rng(3)
    z = rng.standard_normal((30, 40))
    other = np.linalg.svd(rng.standard_normal((30, 40)))[0]
    stretched = np.linalg.svd(z)[0] * 1.001
    for q in (other, stretched):
        assert shrink_in_basis(np, z, q, 1.0, 1e-3, guess=guess) is None
    assert shrink_in_basis(np, z, np.linalg.svd(z)[0], 1.0, 1e-3, guess=guess) is not None


@pytest.mark.parametrize("exact", [False, True])
def test_a_sequence_of_high_rank_keeps_its_basis(exact, monkeypatch):
    """One decomposition while little changes, another where much does."""
    monkeypatch.setattr("ramda_theory.regularizers.threshold_sequence.MANY", 1)
    rng = np.random.default_rng(4)
    z, sequence = rng.standard_normal((60, 40)), NuclearNorm(1.0).prox_sequence(exact=exact)
    for step in range(6):
        z = z + (2e-4 if step < 5 else 1.0) * rng.standard_normal(z.shape)
        x, structure, error = sequence(z, 3.0, 1e-4)
        expected, rank = by_svd(z, 3.0)
        assert error <= 1e-4 and np.linalg.norm(x - expected) <= 2 * error + 1e-12
        assert structure.rank == rank > 20 and sequence.confirmed()
        assert sequence.decompositions == 1 + (step == 5)
        if exact and step == 5:
            assert sequence.basis is None  # the next one will be far away as well
        else:
            assert sequence.basis.shape == (40, 40)


def test_other_regularizers_have_a_sequence_too():
    z = np.array([3.0, -0.5, 1.0])
    x, structure, error = L1(1.0).prox_sequence()(z, 0.7, 1e-3)
    np.testing.assert_array_equal(x, L1(1.0).prox(z, 0.7))
    assert (structure, error) == (None, 0.0) and L1(1.0).prox_sequence().confirmed()


# -- products --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [(0.03, 1.0), (0.2, 1.8), (0.5, 1.5), (0.9, 1.1)])
def test_minimax_quintics_alternate(ends):
    """1 - p reaches its largest size E four times, with alternating signs: Chebyshev's condition for the best."""
    (a, b, c), error = minimax_quintic(*ends)
    x = np.linspace(*ends, 200_001)
    gap = 1.0 - (a * x + b * x**3 + c * x**5)
    assert np.max(np.abs(gap)) == pytest.approx(error, rel=1e-6)
    signs = np.sign(gap[np.abs(gap) > error * (1 - 1e-5)])
    assert np.count_nonzero(np.diff(signs)) == 3


@pytest.mark.parametrize("low", [0.3, 1e-2, 1e-4, 1e-8])
def test_the_composition_maps_the_interval_to_one(low):
    """And nothing below it above 1, which would raise singular values over the threshold."""
    steps = polynomials(low)
    inside, below = (
        np.concatenate([np.linspace(low, 1, 20_001), np.geomspace(low, 1, 20_001)]),
        np.linspace(0, low, 999),
    )
    for a, b, c in steps:
        inside, below = (x * (a + x**2 * (b + x**2 * c)) for x in (inside, below))
    assert np.max(np.abs(inside - 1)) <= 1e-7
    assert np.min(below) >= 0 and np.max(below) <= 1 + 1e-7
    assert len(steps) <= 5 + np.log(1 / low) / np.log(3.6)


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
@pytest.mark.parametrize("shape", [(48, 48), (32, 80), (70, 40)])
def test_products_agree_with_svds(shape, backend):
    """Three matrices at once, with thresholds of their own that keep 3 to 30 singular values: point and rank."""
    rng = np.random.default_rng(0)
    z = backend.round(np.stack([low_rank(rng, *shape, 6, noise=1.0) for _ in range(3)]))
    singular = np.linalg.svd(z, compute_uv=False)
    kept = (3, 10, 30)
    tau = backend.round([0.5 * (s[k - 1] + s[k]) for s, k in zip(singular, kept, strict=True)])
    x, rank = shrink_by_products(backend.array(z), backend.array(tau))
    for i in range(3):
        expected, count = by_svd(z[i], tau[i])
        # Float64 stops where rounding would make it cost twice as many products.
        assert np.linalg.norm(to_numpy(x)[i] - expected) <= max(30 * backend.eps, 1e-8) * np.linalg.norm(z[i])
        assert round(float(rank[i])) == count == kept[i] and abs(float(rank[i]) - count) < 1e-4


def test_products_leave_nothing_below_the_threshold():
    z = torch.randn(2, 20, 30, generator=torch.Generator().manual_seed(0))
    x, rank = shrink_by_products(z, 20.0)
    assert float(x.abs().max()) <= 1e-5 and torch.allclose(rank, torch.zeros(2), atol=1e-5)
