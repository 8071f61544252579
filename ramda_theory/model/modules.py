"""What a parameter is to its module, and the groups a regularizer takes of it.

A group is everything that reads one input of the module, or everything that writes one output: a slice of the weight,
in grouped convolutions and for attention heads after reshaping it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ramda_theory.model.selection import Use
from ramda_theory.regularizers import Regularizer

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)

# The names of weights in full: weight_orig, weight_g or weight_v belong to a reparametrization, and zeros in those are
# not zeros of the weight.
WEIGHTS: dict[tuple[type[nn.Module], ...], str] = {
    (nn.Linear, _ConvNd, *EMBEDDINGS, *NORMS): "weight",
    (nn.RNNBase, nn.RNNCellBase): r"weight_(ih|hh|hr)(_l\d+(_reverse)?)?",
    (nn.MultiheadAttention,): "(in|q|k|v)_proj_weight",
}
WAYS = ("input", "output")


@dataclass(frozen=True)
class Slices:
    """Groups of a weight: seen in ``shape``, one for each index along the axes ``kept``."""

    shape: tuple[int, ...]
    kept: tuple[int, ...]

    @property
    def dims(self) -> tuple[int, ...]:
        """The axes that a group spans."""
        return tuple(axis for axis in range(len(self.shape)) if axis not in self.kept)


@dataclass(frozen=True)
class Role:
    """What a parameter is to the module that owns it.

    Parameters
    ----------
    kind : str
        "weight", "embedding", "norm", "bias", or "unsupported".
    by_input, by_output : Slices, optional
        What reads one input, and what writes one output, of the module.
    """

    kind: str
    by_input: Slices | None = None
    by_output: Slices | None = None


def role(use: Use, heads: bool = False) -> Role:
    """The role of a parameter in one of its uses; "unsupported" if the module or the name is not known.

    With ``heads``, the slices of attention projections are whole heads.
    """
    module, name, parameter = use.owner, use.attribute, use.parameter
    pattern = next((pattern for classes, pattern in WEIGHTS.items() if isinstance(module, classes)), None)
    if pattern is None or not parameter.is_floating_point():
        return Role("unsupported")
    shape = tuple(parameter.shape)
    if "bias" in name:  # also in_proj_bias, bias_k, bias_ih_l0
        return Role("bias", *_entries(shape))
    if not re.fullmatch(pattern, name):
        return Role("unsupported")
    if isinstance(module, NORMS):
        return Role("norm", *_entries(shape))
    if isinstance(module, EMBEDDINGS):
        return Role("embedding", Slices(shape, (0,)), Slices(shape, (1,)))  # a linear map of one-hot inputs, transposed
    if isinstance(module, _ConvNd):
        return _convolution(module, shape)
    head = _head(use, shape) if heads else None
    return Role("weight", head or Slices(shape, (1,)), head or Slices(shape, (0,)))


def _entries(shape: tuple[int, ...]) -> tuple[Slices, Slices]:
    """Every entry a group of its own."""
    alone = Slices(shape, tuple(range(len(shape))))
    return alone, alone


def _convolution(module: _ConvNd, shape: tuple[int, ...]) -> Role:
    """(out, in / groups, ...), or (in, out / groups, ...) if transposed; the second axis restarts in every block."""
    first, second = Slices(shape, (0,)), Slices(shape, (1,))
    if shape[0] == module.groups:  # depthwise: a channel of the second kind is one slice
        second = Slices(shape, (0, 1))
    elif module.groups > 1:
        second = Slices((module.groups, shape[0] // module.groups, *shape[1:]), (0, 2))
    return Role("weight", first, second) if isinstance(module, _ConvTransposeNd) else Role("weight", second, first)


def _head(use: Use, shape: tuple[int, ...]) -> Slices | None:
    """Whole heads of an attention projection: blocks of rows where it makes them, of columns where it reads them."""
    if isinstance(use.owner, nn.MultiheadAttention):
        heads = use.owner.num_heads
        projections = 3 if use.attribute == "in_proj_weight" else 1
        return Slices((projections, heads, shape[0] // (projections * heads), shape[1]), (1,))
    around = use.modules[-2][1] if len(use.modules) > 1 else None
    if isinstance(around, nn.MultiheadAttention) and use.owner is around.out_proj:
        return Slices((shape[0], around.num_heads, shape[1] // around.num_heads), (1,))
    return None


def fit(regularizer: Regularizer, role: Role, by: str, name: str, shape: tuple[int, ...]) -> Regularizer:
    """``regularizer`` with the axes that suit a parameter of this role and shape.

    Group norms are taken over the slices of the role; the nuclear norm takes the first axis as rows and all others as
    columns; every other regularizer stays as it is.
    """
    if regularizer.needs_matrix and role.kind in ("norm", "bias"):
        kind = type(regularizer).__name__
        raise ValueError(f"{name} (shape {shape}) is not a matrix: {kind} cannot regularize a {role.kind}")
    slices: Any = role.by_input if by == "input" else role.by_output
    return regularizer.for_slices(slices.dims, shape, slices.shape)
