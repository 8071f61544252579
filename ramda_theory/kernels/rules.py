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


def is_grouped(rule: int) -> bool:
    """Whether entries are solved for together."""
    return rule >= COLUMNS


def rule_of(psi: Any, own: Layout) -> tuple[int, Sizes, Spec] | str:
    """Rule, sizes and weights for a parameter of a layout, or why compiled engines cannot follow its groups."""
    spec = None if psi is None else psi.kernel()
    shape, stride = tuple(own[1]), own[2]
    flat = axis_sizes(shape, stride, ())
    assert flat is not None  # whoever asks has looked
    if spec is None or (spec.weight == 0 and spec.group_weight == 0 and (spec.entry != "l1" or spec.number == 0)):
        return NO_PSI, flat, (0.0, 0.0, 0.0)
    if not spec.group_weight:
        rule = {"l1": L1, "mcp": MCP, "scad": SCAD}[spec.entry]
        return rule, flat, (spec.weight, spec.number, 0.0)
    if spec.view is not None:
        if stride != row_major(shape):
            return "its groups are those of another shape, and it is not contiguous"
        shape, stride = spec.view, row_major(spec.view)
    sizes = axis_sizes(shape, stride, spec.dims)
    if sizes is None:
        return "its groups lie across its memory in a way that the loops cannot follow"
    group_weight = spec.group_weight * (math.sqrt(sizes[1] * sizes[3]) if spec.size_scaled else 1.0)
    if spec.group_gamma is not None:
        return MCP_ADJACENT if sizes[1] == 1 else MCP_COLUMNS, sizes, (0.0, spec.group_gamma, group_weight)
    return ADJACENT if sizes[1] == 1 else COLUMNS, sizes, (spec.weight, 0.0, group_weight)
