"""Certificates: what is certified is true, and what cannot be is not certified."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ramda_theory import certify, screen
from ramda_theory.problems import (
    binary_logistic,
    digits,
    group_lasso,
    lasso,
    least_squares,
    low_rank,
    mcp,
    multinomial_logistic,
    teacher,
)
from ramda_theory.problems.reference import find_reference
from ramda_theory.regularizers import L1, SCAD, ElasticNet, GroupLasso, NuclearNorm, SparseGroupLasso
from ramda_theory.structure import Rank

KINDS = ("squares", "binary", "multinomial")
PSI = ("L1", "ElasticNet", "GroupLasso", "SparseGroupLasso", "NuclearNorm")


def drawn(kind: str, name: str, seed: int, share: float):
    """A small problem whose weight is a share of the critical one."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(30, 6))
    if name == "NuclearNorm" and kind == "binary":
        name = "L1"
    make = {
        "L1": L1,
        "ElasticNet": lambda weight: ElasticNet(weight, 0.1),
        "GroupLasso": lambda weight: (
            GroupLasso(weight, dims=(1,)) if kind != "binary" else GroupLasso(weight, (), True)
        ),
        "SparseGroupLasso": lambda weight: SparseGroupLasso(weight, 0.4, dims=(1,) if kind != "binary" else (0,)),
        "NuclearNorm": NuclearNorm,
    }[name]

    def build(psi):
        if kind == "squares":
            big = np.random.default_rng(seed).normal(size=(30, 18))
            truth = np.where(np.arange(18) < 6, 1.0, 0.0)
            return least_squares(big, big @ truth + 0.5 * rng.normal(size=30), psi, shape=(6, 3))
        labels = np.argmax(features[:, :3] + 0.7 * rng.normal(size=(30, 3)), axis=1)
        labels[:3] = (0, 1, 2)
        if kind == "multinomial":
            return multinomial_logistic(features, labels, psi)
        return binary_logistic(features, np.minimum(labels, 1), psi)

    state = rng.bit_generator.state
    first = build(make(1.0))
    rng.bit_generator.state = state
    critical = float(first.regularizer.critical_weight(first.gradient(first.initial)))
    return build(make(share * critical))


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    name=st.sampled_from(PSI),
    seed=st.integers(0, 10**6),
    share=st.floats(0.05, 1.2),
    size=st.sampled_from([0.0, 1e-9, 1e-6, 1e-3, 0.1, 1.0]),
)
def test_what_is_screened_is_true_of_the_minimiser(kind, name, seed, share, size):
    problem = drawn(kind, name, seed, share)
    best = find_reference(problem, 1e-11, 20_000)
    if best.stationarity > 1e-9:
        return
    noise = np.random.default_rng(seed + 1).normal(size=best.point.shape)
    support = best.point != 0 if seed % 2 else np.ones(best.point.shape, dtype=bool)
    found = screen(problem, best.point + size * noise * support)
    moved = best.point + size * noise * support
    if isinstance(problem.regularizer, NuclearNorm):
        values = np.linalg.svd(best.point, compute_uv=False)
        assert np.all(values[found.zero] <= 1e-7) and np.all(values[found.nonzero] > 1e-9)
    else:
        assert np.all(np.abs(best.point[found.zero]) <= 1e-7)
        pieces = problem.regularizer.group_norms(best.point) if name == "GroupLasso" else np.abs(best.point)
        assert np.all(np.broadcast_to(pieces, found.nonzero.shape)[found.nonzero] > 0)
    assert problem.objective(moved) - best.objective <= found.gap + problem.objective(moved) + 1e-9
    assert found.gap >= -1e-15


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PSI)
def test_the_gap_and_the_distance_bound_the_true_ones(kind, name):
    problem = drawn(kind, name, 3, 0.3)
    best = find_reference(problem, 1e-12, 50_000)
    decided = 0
    for size in (1e-1, 1e-3, 1e-6):
        moved = best.point * (1.0 + size)
        found = screen(problem, moved)
        if not (name == "GroupLasso" and kind == "multinomial"):  # else the centred point is meant
            assert problem.objective(moved) - best.objective <= found.gap
            assert np.linalg.norm(moved - best.point) <= found.distance + 1e-10
        decided = found.zero.size - found.undecided
    assert decided > 0, "the test proves nothing where nothing is ever decided"


PLANTED = {
    "l1": lambda: lasso(margin=0.2, seed=1),
    "groups": lambda: group_lasso(margin=0.2, seed=1),
    "rank": lambda: low_rank(rows=10, columns=8, samples=120, rank=2, margin=0.2, seed=1),
}


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("start", ["zero", "full", "noise"])
def test_planted_structures_are_certified_from_anywhere(name, start):
    problem = PLANTED[name]()
    rng = np.random.default_rng(0)
    point = problem.solution().point
    w = {"zero": 0 * point, "full": rng.normal(size=point.shape), "noise": point + 0.1 * rng.normal(size=point.shape)}
    found = certify(problem, w[start])
    assert found.certified and found.structure == problem.solution().structure
    assert found.passes <= 15 and found.gap <= 1e-12
    assert np.linalg.norm(found.point - point) <= 1e-6
    assert found.added - found.removed == found.structure.count - problem.regularizer.structure(w[start]).count


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("make", [lasso, group_lasso], ids=["l1", "groups"])
def test_a_margin_of_zero_is_never_certified(make, seed):
    problem = make(margin=0.0, seed=seed)
    for w in (problem.initial, problem.solution().point):
        found = certify(problem, w)
        assert found.verdict == "stationary, margin not positive", found
        assert found.stationarity <= 1e-8


def test_a_margin_of_zero_of_a_matrix_is_never_certified():
    problem = low_rank(rows=10, columns=8, samples=120, rank=2, margin=0.0, seed=0)
    assert not certify(problem, problem.solution().point).certified


@pytest.mark.parametrize("psi", [L1(0.1), GroupLasso(0.1, labels=(0, 0, 1, 1, 2, 2, 3, 3))], ids=str)
def test_duplicate_columns_are_never_certified(psi):
    """Two minimisers have different structures, or one a piece at its bound: no structure is that of all."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 2))
    features = np.hstack([base, base, rng.normal(size=(40, 4))])
    problem = least_squares(features, base.sum(axis=1), psi)
    for w in (problem.initial, rng.normal(size=8), np.array([0.4, 0.4, 0.4, 0.4, 0, 0, 0, 0])):
        found = certify(problem, w)
        assert not found.certified, found
        assert found.stationarity <= 1e-6


@pytest.mark.parametrize("weight", [1e-4, 1e-2])
@pytest.mark.parametrize("seed", range(2))
def test_rank_deficient_data(seed, weight):
    """More columns than rows: what is certified from one start is what is certified from any, and no more than rows."""
    rng = np.random.default_rng(seed)
    problem = least_squares(rng.normal(size=(3, 8)), rng.normal(size=3), L1(weight))
    starts = [problem.initial, *(rng.normal(size=8) for _ in range(2))]
    found = [each for each in (certify(problem, w, max_passes=20) for w in starts) if each.certified]
    assert len({each.structure for each in found}) <= 1
    assert all(each.structure.count <= 3 for each in found)


def test_a_null_space_of_the_data_is_never_certified():
    """psi does not see that two columns have the same effect on f and the same price: sums are settled, shares not."""
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 30, 1))
    problem = least_squares(np.hstack([a, b, 0.5 * (a + b)]), (a + b).ravel(), L1(0.05))
    for w in (np.array([0.5, 0.5, 0.9]), rng.normal(size=3)):
        found = certify(problem, w)
        assert not found.certified, found


def test_a_wrong_support_is_not_certified_as_it_is():
    """One pass only: the point cannot be repaired, and must not be certified."""
    problem = lasso(margin=0.2, seed=2)
    w = problem.solution().point.copy()
    w[np.flatnonzero(w)[0]] = 0.0
    assert not certify(problem, w, max_passes=1).certified
    w = problem.solution().point.copy()
    w[np.flatnonzero(w == 0)[0]] = 1e-5
    assert not certify(problem, w, max_passes=1).certified
    repaired = certify(problem, w)
    assert repaired.certified and (repaired.added, repaired.removed) == (0, 1)


@pytest.mark.parametrize("psi", ["MCP", "SCAD"])
def test_nonconvex_psi_is_certified_locally_alone(psi):
    problem = mcp(margin=0.3, seed=0)
    if psi == "SCAD":
        rng = np.random.default_rng(0)
        features = rng.normal(size=(80, 10))
        problem = least_squares(features, features[:, :3] @ np.array([3.0, -3.0, 3.0]), SCAD(0.3, 3.7))
    found = certify(problem, problem.solution().point)
    assert found.verdict == "certified locally" and not found.certified
    assert found.gap == math.inf and "local" in found.reason
    with pytest.raises(ValueError, match="convex F only"):
        screen(problem, problem.initial)


def test_a_network_is_never_certified():
    problem = teacher()
    assert not certify(problem, problem.initial, max_passes=3).certified


@pytest.mark.parametrize("seed", [0, 1])
def test_perturbed_supports_of_the_digits_are_repaired(seed):
    problem = digits(weight=5e-3)
    best = problem.solution()
    rng = np.random.default_rng(seed)
    w = best.point.copy()
    flipped = rng.choice(64, size=20, replace=False)
    w[flipped] = np.where(np.any(w[flipped] != 0, axis=1, keepdims=True), 0.0, 0.05 * rng.normal(size=(20, 10)))
    found = certify(problem, w)
    assert found.certified and found.structure == best.structure and found.passes <= 16
    assert found.added + found.removed == 20 and problem.objective(found.point) - best.objective <= 1e-12


def test_rank_is_screened_in_singular_values():
    problem = PLANTED["rank"]()
    found = screen(problem, problem.solution().point)
    assert isinstance(found.structure, Rank) and found.structure.rank == 2
    assert found.undecided == 0 and int(found.nonzero.sum()) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"w": np.zeros(3)}, "w must have the shape"),
        ({"w": np.full(50, np.nan)}, "w must be finite"),
        ({"tolerance": 0.0}, "tolerance must be"),
        ({"max_passes": 0}, "max_passes must be"),
    ],
)
def test_bad_arguments(arguments, message):
    problem = lasso()
    with pytest.raises(ValueError, match=message):
        certify(problem, **{"w": problem.initial, **arguments})
