"""Traces give back every structure, whatever its kind and however many steps, and count as the structures do."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ramda_theory.diagnostics.trace as trace_module
from ramda_theory.diagnostics import StructureTrace
from ramda_theory.regularizers import L1, MCP, SCAD, GroupLasso, GroupMCP, NuclearNorm, SparseGroupLasso
from ramda_theory.structure import GroupSupport, Rank, SignPattern

LENGTHS = (1, 2, 1023, 1024, 1025, 2048, 2049)


def random_structures(kind: str, steps: int, seed: int = 0) -> list:
    """Structures of one kind and shape, of the values their regularizers give."""
    rng = np.random.default_rng(seed)
    if kind == "rank":
        return [Rank(int(r), 300, 400) for r in rng.integers(0, 301, steps)]
    low, high, shape, sizes = {
        "support": (0, 2, (5, 1), 10),
        "signs": (-1, 2, (3, 4), 1),
        "branches": (-3, 4, (17,), 1),
        "group branches": (0, 3, (1, 2, 6), 4),
        "labels": (0, 2, (4,), np.array([1, 5, 2, 3])),
        "scalar": (-1, 2, (), 1),
        "nothing": (0, 2, (0, 3), 1),
    }[kind]
    cls = GroupSupport if kind in ("support", "group branches", "labels") else SignPattern
    return [cls(pattern, sizes) for pattern in rng.integers(low, high, (steps, *shape)).astype(np.int8)]


KINDS = ("support", "signs", "branches", "group branches", "labels", "scalar", "nothing", "rank")


def traced(structures) -> StructureTrace:
    trace = StructureTrace()
    for structure in structures:
        trace.append(structure)
    return trace


def saved_and_loaded(trace: StructureTrace, path) -> StructureTrace:
    np.savez(path, **trace.to_arrays())
    with np.load(path, allow_pickle=False) as data:
        return StructureTrace.from_arrays(dict(data))


@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind, steps, tmp_path):
    structures = random_structures(kind, steps)
    trace = traced(structures)
    for copy in (trace, saved_and_loaded(trace, tmp_path / "trace.npz")):
        assert len(copy) == steps
        for index in {0, steps - 1, -1, -steps, min(1023, steps - 1), min(1024, steps - 1), steps // 2}:
            found, wanted = copy[index], structures[index]
            assert found == wanted and type(found) is type(wanted)
            assert found.dimension == wanted.dimension and found.count == wanted.count
            if not isinstance(wanted, Rank):
                assert found.pattern.dtype == np.int8 and found.pattern.shape == wanted.pattern.shape
        np.testing.assert_array_equal(copy.counts(), [s.count for s in structures])
        reference = structures[steps // 3]
        np.testing.assert_array_equal(copy.distances(reference), [s.distance(reference) for s in structures])
        changes = [0, *(after.distance(before) for before, after in pairwise(structures))]
        np.testing.assert_array_equal(copy.changes(), changes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_trace_goes_on(kind, tmp_path):
    structures = random_structures(kind, 1030)
    first = traced(structures[:1020])
    copy = saved_and_loaded(first, tmp_path / "trace.npz")
    for structure in structures[1020:]:
        first.append(structure)
        copy.append(structure)
    one, other = first.to_arrays(), copy.to_arrays()
    assert one.keys() == other.keys()
    for key, array in one.items():
        np.testing.assert_array_equal(array, other[key])


def test_an_empty_trace(tmp_path):
    trace = saved_and_loaded(StructureTrace(), tmp_path / "trace.npz")
    assert len(trace) == 0
    assert trace.counts().size == trace.changes().size == trace.distances(Rank(1, 2, 2)).size == 0
    with pytest.raises(IndexError, match="step index"):
        trace[0]
    trace.append(Rank(1, 2, 2))
    assert trace[0] == Rank(1, 2, 2)


@settings(max_examples=40)
@given(data=st.data(), pieces=st.integers(0, 30), steps=st.integers(0, 40))
def test_round_trip_of_any_values(data, pieces, steps):
    """Blocks of seven steps, so that many lengths cross their boundaries; values from -4 to 3, or zeros and ones."""
    low, high = data.draw(st.sampled_from([(-4, 3), (0, 1), (-1, 1), (0, 3)]))
    seed = data.draw(st.integers(0, 2**32 - 1))
    patterns = np.random.default_rng(seed).integers(low, high + 1, (steps, pieces)).astype(np.int8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace_module, "BLOCK", 7)
        trace = traced(SignPattern(p) for p in patterns)
        copy = StructureTrace.from_arrays(trace.to_arrays())
        for found in (trace, copy):
            assert [found[i].pattern.tolist() for i in range(steps)] == patterns.tolist()


@pytest.mark.parametrize(
    ("psi", "expected"),
    [
        (L1(0.5), {-1, 0, 1}),
        (SparseGroupLasso(0.5, 0.5), {-1, 0, 1}),
        (MCP(0.5, 2.0), {-2, -1, 0, 1, 2}),
        (SCAD(0.5, 3.0), {-3, -2, -1, 0, 1, 2, 3}),
        (GroupLasso(0.5, dims=(1,)), {0, 1}),
        (GroupMCP(0.2, 2.0, dims=(1,)), {0, 1, 2}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_structures_of_points_come_back(psi, expected):
    """From points through a regularizer into packed blocks, with every branch that can occur."""
    rng = np.random.default_rng(0)
    points = [psi.prox(rng.standard_normal((6, 3)) * rng.uniform(0, 2, (6, 1)), 1.0) for _ in range(1100)]
    structures = [psi.structure(w) for w in points]
    trace = traced(structures)
    assert set(np.concatenate([np.unique(s.pattern) for s in structures]).tolist()) == expected
    assert all(trace[i] == structures[i] for i in (0, 500, 1023, 1024, 1099))
    np.testing.assert_array_equal(trace.counts(), [s.count for s in structures])


def test_ranks_come_back():
    psi = NuclearNorm(1.0)
    rng = np.random.default_rng(0)
    structures = [psi.prox_structure(rng.standard_normal((6, 4)), 1.0)[1] for _ in range(50)]
    trace = traced(structures)
    assert [trace[i] for i in range(50)] == structures and len(set(structures)) > 1


def test_memory_per_step():
    """A bit per piece for supports, three for signs and branches: nothing near the size of the weights."""
    rng = np.random.default_rng(0)
    for cls, sign, bits in ((GroupSupport, 1, 1), (SignPattern, -1, 3)):
        trace = traced(cls(sign * rng.integers(0, 2, 800).astype(np.int8)) for _ in range(1024))
        assert sum(packed.nbytes for packed, _ in trace._packed) == 1024 * 100 * bits


def test_large_patterns_are_packed_sooner():
    """The block that waits for packing is bounded in bytes, not only in steps."""
    pieces = 3 * 2**20
    patterns = [np.zeros(pieces, dtype=np.int8) for _ in range(12)]
    for step, pattern in enumerate(patterns):
        pattern[: step + 1] = 1
    trace = traced(GroupSupport(p) for p in patterns)
    assert trace._block.nbytes <= trace_module.BLOCK_BYTES
    np.testing.assert_array_equal(trace.counts(), np.arange(1, 13))
    assert (trace[7].pattern == patterns[7]).all() and len(trace) == 12


def test_what_does_not_belong_is_refused():
    trace = traced([SignPattern(np.zeros(3, np.int8))])
    for other in (
        GroupSupport(np.zeros(3, np.int8)),
        SignPattern(np.zeros(1, np.int8)),
        SignPattern(np.zeros((3, 1), np.int8)),
        Rank(1, 2, 2),
    ):
        with pytest.raises(TypeError, match="not structures of one kind and shape"):
            trace.append(other)
        with pytest.raises(TypeError, match="not structures of one kind and shape"):
            trace.distances(other)
    assert len(trace) == 1
    ranks = traced([Rank(1, 2, 2)])
    for other in (Rank(1, 2, 3), SignPattern(np.zeros(1, np.int8))):
        with pytest.raises(TypeError, match="not structures of one kind and shape"):
            ranks.append(other)
    for index in (1, -2):
        with pytest.raises(IndexError, match=f"below 1 in size, got {index}"):
            trace[index]


def test_values_that_three_bits_cannot_hold_are_refused():
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ValueError, match="from -4 to 3, got 0 to 4"):
        patch.setattr(trace_module, "BLOCK", 1)
        traced([SignPattern(np.array([0, 4], np.int8))])
