"""An optimizer of a compacted model: the options and the state of what remains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ramda_theory.regularizers import Regularizer

if TYPE_CHECKING:
    from ramda_theory.model.compaction import Compaction
    from ramda_theory.model.compaction.result import Cut

POINTS = ("anchor", "w")
"""Arrays of a state that are points: a bias that has absorbed a constant takes them along."""


def compacted_groups(
    optimizer: torch.optim.Optimizer, small: Compaction
) -> tuple[list[dict[str, Any]], dict[Tensor, dict[str, Tensor]]]:
    """Parameter groups of the small model, and the states of its parameters.

    Raises
    ------
    ValueError
        If a parameter is none of the model that was compacted, was written as two factors, or has groups of which too
        little remains to be groups.
    """
    names = {id(parameter): name for name, parameter in small.original.named_parameters()}
    own = dict(small.model.named_parameters())
    groups: list[dict[str, Any]] = []
    states: dict[Tensor, dict[str, Tensor]] = {}
    for group in optimizer.param_groups:
        new: dict[str, Any] = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        new["params"], new["param_names"] = [], []
        cuts: list[tuple[tuple[int, ...], Cut | None]] = []
        regularizers: dict[Regularizer | None, list[int]] = {}
        for i, parameter in enumerate(group["params"]):
            name = names.get(id(parameter))
            if name is None:
                raise ValueError(f"parameter {i} of a group is none of the model that was compacted")
            cut = small.cuts.get(name)
            if cut is not None and cut.factored:
                raise ValueError(f"{name} became two factors, which its state does not: compact with low_rank=False")
            shape = tuple(parameter.shape)
            psi = group["regularizer"]
            if psi is not None and psi.joint_shapes is None and cut is not None:
                psi = psi.of_part(shape, cut.kept)
            cuts.append((shape, cut))
            regularizers.setdefault(psi, []).append(i)
            new["params"].append(own[name])
            new["param_names"].append(name)
            if state := optimizer.state.get(parameter):
                states[own[name]] = _part(state, shape, cut)
        if None not in regularizers and group["regularizer"].joint_shapes is not None:
            joint = group["regularizer"].of_parts([{} if cut is None else cut.kept for _, cut in cuts])
            groups.append({**new, "regularizer": joint})
            continue
        for psi, members in regularizers.items():  # cut differently, they are weighted differently
            part = {key: [new[key][i] for i in members] for key in ("params", "param_names")}
            groups.append({**new, **part, "regularizer": psi})
    return groups, states


def _part(state: dict[str, Any], shape: tuple[int, ...], cut: Cut | None) -> dict[str, Tensor]:
    """The state of what remains of a parameter."""
    found = {}
    for key, value in state.items():
        if key == "norms":  # where solvers start: of other groups now
            continue
        if cut is not None and isinstance(value, Tensor) and tuple(value.shape) == shape:
            value = cut.of(value, shifted=key in POINTS)
        found[key] = value.detach().clone(memory_format=torch.contiguous_format)
    return found
