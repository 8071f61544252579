"""`coupled_param_groups`: groups of all that a channel is made of, across the tensors that share it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from ramda_theory.model.compaction.analysis import Analysis
from ramda_theory.model.compaction.edits import names_of
from ramda_theory.model.compaction.trace import Example, trace
from ramda_theory.model.compaction.units import Leaf
from ramda_theory.model.groups import Decision, ParamGroups
from ramda_theory.regularizers import Regularizer


def coupled_param_groups(
    model: nn.Module, regularizer: Regularizer, example_inputs: Any, *, norms: bool = True, biases: bool = True
) -> ParamGroups:
    """Parameter groups whose every zero group is a channel, or an attention head, that can be removed.

    A group of one layer that is zero can often not leave: in a residual network the channel is read elsewhere.  Here a
    group is cut across all tensors that share the channel: the columns of every layer that reads it, the rows of layers
    that write it (where their inputs are no such channels, as of the first layer), its entries in norms and biases.  An
    entry of a weight is part of one group only: its column's where that can leave, else its row's.

    Parameters
    ----------
    model : torch.nn.Module
    regularizer : GroupLasso, SparseGroupLasso or GroupMCP
        Without axes of its own: its ``dims`` are not used.
    example_inputs : Tensor, tuple or dict
        As for `compact`.
    norms, biases : bool
        Whether entries of norms and of biases are part of the groups; else they are not regularized.

    Returns
    -------
    ParamGroups
        All coupled parameters in one group, with a regularizer that spans them, and the rest unregularized.

    Raises
    ------
    TypeError
        If the regularizer has no groups.
    ValueError
        If no channel can leave, or the model cannot be traced (see `compact`).

    Notes
    -----
    That zero groups can be removed is tried on a copy of the graph: what could not leave there is not coupled.
    """
    groups = regularizer.as_groups if isinstance(regularizer, Regularizer) else None
    if groups is None or groups.tied_to_shape:
        raise TypeError(f"regularizer must be one of groups, without labels, view or spans, got {regularizer!r}")
    traced = trace(model, Example.of(example_inputs))
    analysis = Analysis(model, traced)
    own = {name: tensor for name, tensor in names_of(model) if isinstance(tensor, nn.Parameter)}
    wanted = {name: leaf for name, leaf in analysis.leaves.items() if name in own and own[name].requires_grad}
    usable = _removable(analysis, wanted, norms, biases)
    chosen = {name: axis for name, leaf in wanted.items() if (axis := _axis(leaf, usable, norms, biases)) is not None}
    if not chosen:
        raise ValueError("no channel of the model can leave: nothing to couple (see compact(...).table())")
    roots = {name: analysis.units.find(wanted[name].axes[axis]) for name, axis in chosen.items()}
    spans, number = [], dict[Any, int]()
    for name, axis in chosen.items():
        # A slice that no removable channel owns is a group of its own.
        keys = [int(u) if usable[u] else (name, i) for i, u in enumerate(roots[name])]
        indices = tuple(number.setdefault(key, len(number)) for key in keys)
        spans.append((tuple(own[name].shape), axis, indices))
    psi = groups.spanning(tuple(spans))
    return ParamGroups(_decisions(model, own, chosen, psi))


def _axis(leaf: Leaf, usable: np.ndarray, norms: bool, biases: bool) -> int | None:
    """The axis whose slices are parts of groups: what is read before what is written."""
    if leaf.data.ndim == 1 and not (norms if leaf.name.endswith("weight") else biases):
        return None
    order = (0,) if leaf.data.ndim == 1 else _reading_first(leaf)
    return next((axis for axis in order if axis in leaf.axes and usable[leaf.axes[axis]].any()), None)


def _reading_first(leaf: Leaf) -> tuple[int, ...]:
    """The axes of a weight, that of its inputs first."""
    return (0, 1) if leaf.reads == 0 else (1, 0)


def _removable(analysis: Analysis, wanted: dict[str, Leaf], norms: bool, biases: bool) -> np.ndarray:
    """Which units leave once their groups are zero: half of them are tried at a time."""
    units = analysis.units
    every = np.arange(len(units))
    roots = units.find(every)
    usable = np.ones(len(units), dtype=bool)
    usable[np.isin(roots, roots[list(units.pinned)])] = False
    for _ in range(4):
        failed = np.zeros(len(units), dtype=bool)
        for parity in (0, 1):
            number = np.cumsum(np.isin(every, np.unique(roots))) % 2
            tried = usable & (number[roots] == parity)
            zeroed = dict(analysis.traced.tensors)
            for placeholder, (name, tensor) in analysis.traced.tensors.items():
                leaf = wanted.get(name)
                axis = None if leaf is None else _axis(leaf, usable, norms, biases)
                if leaf is not None and axis is not None:
                    index = np.flatnonzero(tried[leaf.axes[axis]])
                    zeroed[placeholder] = (name, _without(tensor, axis, index))
            found = Analysis(analysis.model, replace(analysis.traced, tensors=zeroed))
            if len(found.live) != len(units):
                raise AssertionError("the same graph has other units")
            failed |= tried & found.live
        if not failed.any():
            break
        usable &= ~np.isin(roots, roots[failed])
    return usable


def _without(tensor: Tensor, axis: int, index: np.ndarray) -> Tensor:
    import torch

    copy = tensor.clone()
    return copy.index_fill_(axis, torch.from_numpy(index).to(copy.device), 0.0)


def _decisions(
    model: nn.Module, own: dict[str, nn.Parameter], chosen: dict[str, int], psi: Regularizer
) -> list[Decision]:
    """One per parameter, the coupled ones in the order of the spans."""
    names: dict[int, list[str]] = {}
    for name, parameter in own.items():
        names.setdefault(id(parameter), []).append(name)
    coupled = [own[name] for name in chosen]
    rest = [parameter for parameter in model.parameters() if not any(parameter is other for other in coupled)]
    found = []
    for parameter in [*coupled, *rest]:
        mine = names[id(parameter)]
        module = type(model.get_submodule(mine[0].rpartition(".")[0])).__name__
        spanned = any(parameter is other for other in coupled)
        found.append(
            Decision(tuple(mine), parameter, module, psi if spanned else None, "" if spanned else "not coupled")
        )
    return found
