"""How many parameters of a chain of linear layers can be removed without changing what it computes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import nn

KEEPS_ZERO = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish),
    *(nn.Tanh, nn.Tanhshrink, nn.Softsign, nn.Softshrink, nn.Hardshrink, nn.Identity, nn.Dropout),
)
"""Modules that act entry by entry and map 0 to 0."""
ENTRYWISE = (*KEEPS_ZERO, nn.Sigmoid, nn.Hardsigmoid, nn.LogSigmoid, nn.Softplus)


def removable_parameters(model: nn.Module) -> int | None:
    """Parameters of a chain of linear layers without which it computes the same function.

    A unit between two layers goes if nothing reads it (its column in the next layer is zero) or if it is always zero
    (its row and bias are zero, and the activation maps 0 to 0); with it go its row, its bias and its column.  Input
    features that nothing reads go with their column.  What goes may leave others unread or zero, and so on.  Units that
    are constant for reasons other than zeros (a ReLU of a negative bias) stay.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    int or None
        None unless ``model`` is a ``Sequential`` (possibly of ``Sequential``) of ``Linear`` layers with nothing but
        entrywise activations between them, none of them shared, and no parameters elsewhere.  Other networks couple
        their layers in ways that zeros alone do not tell: the two ends of a residual connection lose a channel
        together or not at all.
    """
    chain = _linear_chain(model)
    if chain is None:
        return None
    layers, keeps_zero = chain
    nonzero = [layer.weight.detach() != 0 for layer in layers]
    biases = [_has_bias(layer) for layer in layers]
    live = [torch.ones_like(nonzero[0][0]), *(torch.ones_like(bias) for bias in biases)]
    while True:
        before = sum(int(units.sum()) for units in live)
        for k, weight in enumerate(nonzero):
            live[k] = live[k] & (weight & live[k + 1][:, None]).any(dim=0)
            if k + 1 < len(layers) and keeps_zero[k]:
                live[k + 1] = live[k + 1] & ((weight & live[k]).any(dim=1) | biases[k])
        if sum(int(units.sum()) for units in live) == before:
            break
    kept = 0
    for layer, (read, written) in zip(layers, itertools.pairwise(live), strict=True):
        kept += int(written.sum()) * (int(read.sum()) + (layer.bias is not None))
    return sum(parameter.numel() for parameter in model.parameters()) - kept


def _has_bias(layer: nn.Linear) -> torch.Tensor:
    """Which outputs have a nonzero bias."""
    if layer.bias is None:
        return torch.zeros(layer.out_features, dtype=torch.bool, device=layer.weight.device)
    return layer.bias.detach() != 0


def _linear_chain(model: nn.Module) -> tuple[list[nn.Linear], list[bool]] | None:
    """The linear layers in order, and whether what stands between each and the next keeps zeros zero."""
    modules = list(_flat(model))
    linear = {i: module for i, module in enumerate(modules) if type(module) is nn.Linear}
    layers = list(linear.values())
    own = [parameter for layer in layers for parameter in layer.parameters()]
    # Anything reparametrized, shared, or with parameters elsewhere is no such chain.
    whole = {id(parameter) for parameter in model.parameters()}
    if not layers or len(own) != len(whole) or {id(parameter) for parameter in own} != whole:
        return None
    if any("weight" not in layer._parameters for layer in layers):
        return None
    between = [modules[i + 1 : j] for i, j in itertools.pairwise(linear)]
    if not all(isinstance(module, ENTRYWISE) for gap in between for module in gap):
        return None
    return layers, [all(isinstance(module, KEEPS_ZERO) for module in gap) for gap in between]


def _flat(module: nn.Module) -> Iterator[nn.Module]:
    """The modules of nested ``Sequential`` in the order they run."""
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        for child in module:
            yield from _flat(child)
    else:
        yield module
