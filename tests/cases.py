"""Strategies: regularizers of every kind on arrays of 0 to 5 axes, at any scale, in metrics of any spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from backends import LAYOUTS, Backend
from hypothesis import strategies as st

from ramda_theory.regularizers import L1, MCP, SCAD, ElasticNet, GroupLasso, GroupMCP, NuclearNorm, SparseGroupLasso

KINDS = (
    "L1",
    "ElasticNet",
    "MCP",
    "SCAD",
    "GroupLasso",
    "labels",
    "SparseGroupLasso",
    "GroupMCP",
    "NuclearNorm",
)
"""Every regularizer; "labels" is a GroupLasso whose groups are given by labels."""

METRIC_KINDS = tuple(kind for kind in KINDS if kind != "NuclearNorm")
CONVEX_KINDS = tuple(kind for kind in KINDS if kind not in ("MCP", "SCAD", "GroupMCP"))


@dataclass(frozen=True)
class Case:
    """A regularizer, data of its shape at the scale of its weight, and a positive metric."""

    regularizer: Any
    z: np.ndarray
    diag: np.ndarray
    step: float
    layout: str
    rng: np.random.Generator

    def arrays(self, backend: Backend) -> tuple[Any, Any]:
        """z and diag of one backend."""
        return backend.array(self.z, self.layout), backend.array(self.diag, self.layout)


def exponents(low: float, high: float) -> st.SearchStrategy[float]:
    """10 to a power between ``low`` and ``high``."""
    return st.floats(low, high).map(lambda power: float(10.0**power))


@st.composite
def cases(draw: st.DrawFn, kind: str, *, scales: float = 12.0, spread: float = 9.0, empty: bool = True) -> Case:
    """Cases of one kind: data 10^-scales .. 10^scales, max diag / min diag up to 10^spread, axes maybe of length 0."""
    lengths = st.sampled_from([1, 2, 3, 4, 2, 3, 0] if empty else [1, 2, 3, 4])
    if kind == "labels":
        shape = (draw(st.integers(0 if empty else 1, 12)),)
    else:
        shape = tuple(draw(st.lists(lengths, max_size=5)))
    scale = draw(exponents(-scales, scales))
    regularizer = draw(regularizers(kind, shape, scale))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    z = scale * rng.standard_normal(shape)
    if draw(st.booleans()):
        z = np.where(rng.random(shape) < 0.3, 0.0, z)
    half = draw(st.sampled_from([0.0, 0.3, spread / 2]))
    diag = draw(exponents(-3, 3)) * 10.0 ** rng.uniform(-half, half, shape)
    return Case(regularizer, z, diag, draw(exponents(-2, 2)), draw(st.sampled_from(LAYOUTS)), rng)


@st.composite
def regularizers(draw: st.DrawFn, kind: str, shape: tuple[int, ...], scale: float = 1.0) -> Any:
    """A regularizer of ``kind`` for arrays of ``shape``, its weight within a factor 1e3 of ``scale`` or zero."""
    weight = draw(st.one_of(st.just(0.0), st.just(scale), exponents(-3, 0.5).map(lambda factor: factor * scale)))
    positive = exponents(-1, 1.5)
    if kind == "L1":
        return L1(weight)
    if kind == "ElasticNet":
        return ElasticNet(weight, draw(st.one_of(st.just(0.0), positive)))
    if kind == "MCP":
        return MCP(weight, draw(positive))
    if kind == "SCAD":
        return SCAD(weight, 2.0 + draw(positive))
    if kind == "NuclearNorm":
        order = draw(st.permutations(range(len(shape))))
        order = [axis - len(shape) * draw(st.booleans()) for axis in order]
        cut = draw(st.integers(0, len(shape)))
        return NuclearNorm(weight, tuple(order[:cut]), tuple(order[cut:]))
    scaled = draw(st.booleans())
    if kind == "labels":
        labels = draw(st.lists(st.integers(-2, 3), min_size=shape[0], max_size=shape[0]))
        return GroupLasso(weight, size_scaled=scaled, labels=tuple(labels))
    dims = draw(dims_of(len(shape)))
    if kind == "GroupLasso":
        return GroupLasso(weight, dims, scaled)
    if kind == "SparseGroupLasso":
        ratio = draw(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1)))
        return SparseGroupLasso(weight, ratio, dims, scaled)
    assert kind == "GroupMCP"
    return GroupMCP(weight, draw(positive), dims, scaled)


@st.composite
def dims_of(draw: st.DrawFn, rank: int) -> tuple[int, ...]:
    """Any distinct axes of an array of ``rank`` axes, in any order, counted from either end."""
    order = draw(st.permutations(range(rank)))
    return tuple(axis - rank * draw(st.booleans()) for axis in order[: draw(st.integers(0, rank))])
