"""Whether two models compute the same: the largest relative difference of their outputs, in float64."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ramda_theory.model.compaction.trace import Example, evaluating


def difference(one: nn.Module, other: nn.Module, example: Example) -> float:
    """max |a - b| / max |a| over the tensors that both return in evaluation mode, both in float64.

    Models that cannot run in float64 are compared in their own precision.

    Raises
    ------
    ValueError
        If they return different things.
    """
    with torch.no_grad():
        try:
            wide = [_outputs(copy.deepcopy(model).double(), example.to(torch.float64)) for model in (one, other)]
        except (RuntimeError, TypeError):
            wide = [_outputs(model, example) for model in (one, other)]
    return relative(*wide)


def _outputs(model: nn.Module, example: Example) -> list[Tensor]:
    with evaluating(model):
        return tensors_in(model(*example.args, **example.kwargs))


def tensors_in(output: Any) -> list[Tensor]:
    """The tensors of a nested output."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, Tensor)]


def relative(one: list[Tensor], other: list[Tensor]) -> float:
    """max |a - b| / max |a| over pairs of tensors."""
    if [each.shape for each in one] != [each.shape for each in other]:
        raise ValueError(
            f"outputs differ in shape: {[tuple(each.shape) for each in one]} and {[tuple(e.shape) for e in other]}"
        )
    worst = 0.0
    for a, b in zip(one, other, strict=True):
        if a.numel():
            a, b = a.double(), b.double()
            if not torch.equal(a.isfinite(), b.isfinite()):
                return float("inf")
            both = a.isfinite()
            a, b = torch.where(both, a, 0.0), torch.where(both, b, 0.0)
            worst = max(worst, float((a - b).abs().max() / a.abs().max().clamp(min=torch.finfo(a.dtype).tiny)))
    return worst
