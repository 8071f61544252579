"""What a parameter is to its module, and the groups a regularizer takes of it; torch's own modules.

A group is everything that reads one input of the module, or everything that writes one output: a slice of the weight,
in grouped convolutions and for attention heads after reshaping it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ramda_theory.model import known_modules  # registers classes of other libraries
from ramda_theory.model.registry import Axes, Heads, Role, Slices, heads_of, meaning_of, register_module
from ramda_theory.model.selection import Use
from ramda_theory.regularizers import Regularizer

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
WAYS = ("input", "output")


def convolution(module: _ConvNd, shape: tuple[int, ...]) -> Role:
    """(out, in / groups, ...), or (in, out / groups, ...) if transposed; the second axis restarts in every block."""
    first, second = Slices(shape, (0,)), Slices(shape, (1,))
    if shape[0] == module.groups:  # depthwise: a channel of the second kind is one slice
        second = Slices(shape, (0, 1))
    elif module.groups > 1:
        second = Slices((module.groups, shape[0] // module.groups, *shape[1:]), (0, 2))
    return Role("weight", first, second) if isinstance(module, _ConvTransposeNd) else Role("weight", second, first)


def attention_heads(module: nn.MultiheadAttention) -> Heads:
    """Blocks of rows where a projection makes heads (of queries, keys and values together), of columns where it reads
    them."""
    found = {"out_proj.weight": _columns(module.out_proj.weight, module.num_heads)}
    for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
        if (weight := getattr(module, name)) is not None:
            together = 3 if name == "in_proj_weight" else 1
            rows, columns = weight.shape
            found[name] = Slices((together, module.num_heads, rows // (together * module.num_heads), columns), (1,))
    return found


def _columns(weight: Any, heads: int) -> Slices:
    rows, columns = weight.shape
    return Slices((rows, heads, columns // heads), (1,))


LINEAR = Axes(input=1, output=0)

# The names of weights in full: weight_orig, weight_g or weight_v belong to a reparametrization, and zeros in those are
# not zeros of the weight.
register_module(nn.Linear, {"weight": LINEAR})
register_module(_ConvNd, {"weight": convolution})
register_module(nn.RNNBase, {r"weight_(ih|hh|hr)_l\d+(_reverse)?": LINEAR})
register_module(nn.RNNCellBase, {"weight_(ih|hh)": LINEAR})
register_module(nn.MultiheadAttention, {"(in|q|k|v)_proj_weight": LINEAR}, heads=attention_heads)
for norm in NORMS:
    register_module(norm, {"weight": "norm"})
for embedding in EMBEDDINGS:
    register_module(embedding, {"weight": "embedding"})
known_modules.register()


def role(use: Use, heads: bool = False) -> Role:
    """The role of a parameter in one of its uses; "unsupported" if the module or the name is not known.

    With ``heads``, the slices of attention projections are whole heads; where the attention around a weight is known
    but its heads are not, the reason says why.
    """
    found = meaning_of(use.owner, use.attribute, tuple(use.parameter.shape))
    if not use.parameter.is_floating_point():
        return Role("unsupported", reason=f"unsupported: {use.attribute} of {type(use.owner).__name__}")
    if not heads or found.kind != "weight":
        return found
    unknown = ""
    for name, module in reversed(use.modules):
        known = heads_of(module)
        if isinstance(known, str):
            unknown = unknown or known
        elif known is not None:
            slices = known.get(use.name.removeprefix(f"{name}." if name else ""))
            if slices is not None:
                return Role("weight", slices, slices, heads=True)
    return replace(found, reason=unknown)


def adapt(regularizer: Regularizer, role: Role, by: str, name: str, shape: tuple[int, ...]) -> Regularizer:
    """``regularizer`` with the axes that suit a parameter of this role and shape.

    Group norms are taken over the slices of the role; the nuclear norm takes the first axis as rows and all others as
    columns; every other regularizer stays as it is.
    """
    if regularizer.needs_matrix and role.kind in ("norm", "bias"):
        kind = type(regularizer).__name__
        raise ValueError(f"{name} (shape {shape}) is not a matrix: {kind} cannot regularize a {role.kind}")
    slices: Any = role.by_input if by == "input" else role.by_output
    return regularizer.for_slices(slices.dims, shape, slices.shape)
