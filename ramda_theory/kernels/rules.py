"""What is solved for a parameter: psi's rule, the axes its groups lie along in memory, and the weights."""

from __future__ import annotations

import math
from typing import Any

import torch

from ramda_theory.kernels.cpu.layout import Sizes, axis_sizes, row_major

NO_PSI, L1, MCP, SCAD, COLUMNS, ADJACENT, MCP_COLUMNS, MCP_ADJACENT = range(8)
"""Entries without psi or with one of three; groups that lie across or along memory, or whose norms have an MCP."""

Layout = tuple[torch.dtype, torch.Size, tuple[int, ...]]
Spec = tuple[float, float, float]
"""Weight and number of the entries' part (or gamma of the groups'), weight of a group."""
NO_ENTRIES: Sizes = (1, 1, 1, 0)


def is_grouped(rule: int) -> bool:
    """Whether entries are solved for together."""
    return rule >= COLUMNS


def rule_of(psi: Any, own: Layout, whole: torch.Size | None = None) -> tuple[int, Sizes, Spec] | str:
    """Rule, sizes and weights for a parameter of a layout, or why compiled engines cannot follow its groups.

    Parameters
    ----------
    psi : Regularizer or None
    own : Layout
    whole : torch.Size, optional
        Shape of the tensor whose piece this is: groups count with all of their entries, and there may be none here.
    """
    spec = None if psi is None else psi.kernel()
    shape, stride = tuple(own[1]), own[2]
    flat = axis_sizes(shape, stride, ()) if math.prod(shape) else NO_ENTRIES
    assert flat is not None  # whoever asks has looked
    if spec is None or (spec.weight == 0 and spec.group_weight == 0 and (spec.entry != "l1" or spec.number == 0)):
        return NO_PSI, flat, (0.0, 0.0, 0.0)
    if not spec.group_weight:
        rule = {"l1": L1, "mcp": MCP, "scad": SCAD}[spec.entry]
        return rule, flat, (spec.weight, spec.number, 0.0)
    if spec.view is not None:
        if whole is not None:
            return "its groups are those of another shape, and it is cut across processes"
        if stride != row_major(shape):
            return "its groups are those of another shape, and it is not contiguous"
        shape, stride = spec.view, row_major(spec.view)
    sizes = axis_sizes(shape, stride, spec.dims) if math.prod(shape) else sizes_without_entries(shape, spec.dims)
    if sizes is None:
        return "its groups lie across its memory in a way that the loops cannot follow"
    entries = sizes[1] * sizes[3] if whole is None else math.prod(whole[dim] for dim in spec.dims)
    group_weight = spec.group_weight * (math.sqrt(entries) if spec.size_scaled else 1.0)
    if spec.group_gamma is not None:
        return MCP_ADJACENT if sizes[1] == 1 else MCP_COLUMNS, sizes, (0.0, spec.group_gamma, group_weight)
    return ADJACENT if sizes[1] == 1 else COLUMNS, sizes, (spec.weight, 0.0, group_weight)


def sizes_without_entries(shape: tuple[int, ...], dims: tuple[int, ...]) -> Sizes:
    """Of a piece that may have groups, but none of their entries."""
    reduced = {dim % len(shape) for dim in dims}
    return math.prod(n for axis, n in enumerate(shape) if axis not in reduced), 0, 1, 1
