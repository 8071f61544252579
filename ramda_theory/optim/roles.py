"""What a parameter is to its module, and the groups a regularizer takes of it.

In every supported weight one axis counts the inputs of the module and one its outputs.  A group is a slice: everything
that reads one input, or everything that writes one output.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ramda_theory.regularizers import NuclearNorm, Regularizer
from ramda_theory.regularizers.grouped import Grouped

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


@dataclasses.dataclass(frozen=True)
class Role:
    """What a parameter is to the module that owns it.

    Parameters
    ----------
    kind : str
        "weight", "embedding", "norm", "bias", or "unsupported".
    input_axis, output_axis : int, optional
        The axis along which the inputs and the outputs of the module are counted.  None if there is no such axis: in
        a grouped convolution one of the two is spread over several blocks, and vectors have neither.
    """

    kind: str
    input_axis: int | None = None
    output_axis: int | None = None


def role(module: nn.Module, name: str, parameter: Tensor) -> Role:
    """The role of ``module``'s own parameter ``name``; "unsupported" if the module or the name is not known."""
    pattern = next((pattern for classes, pattern in WEIGHTS.items() if isinstance(module, classes)), None)
    if pattern is None or not parameter.is_floating_point():
        return Role("unsupported")
    if "bias" in name:  # also in_proj_bias, bias_k, bias_ih_l0
        return Role("bias")
    if not re.fullmatch(pattern, name):
        return Role("unsupported")
    if isinstance(module, NORMS):
        return Role("norm")
    if isinstance(module, EMBEDDINGS):
        return Role("embedding", 0, 1)  # a linear map of one-hot inputs, stored transposed
    return _convolution(module) if isinstance(module, _ConvNd) else Role("weight", 1, 0)


def _convolution(module: _ConvNd) -> Role:
    """(out, in / groups, ...), or (in, out / groups, ...) if transposed; the second axis restarts in every block."""
    transposed = isinstance(module, _ConvTransposeNd)
    first, second = (
        (module.in_channels, module.out_channels) if transposed else (module.out_channels, module.in_channels)
    )
    if module.groups == 1:
        second_axis: int | None = 1
    else:  # depthwise with one filter per channel: channel c is row c on both sides
        second_axis = 0 if first == second == module.groups else None
    return Role("weight", 0, second_axis) if transposed else Role("weight", second_axis, 0)


def fit(regularizer: Regularizer, role: Role, by: str, name: str, shape: tuple[int, ...]) -> Regularizer:
    """``regularizer`` with the axes that suit a parameter of this role and shape.

    Group norms are taken over all axes but that of the inputs or outputs; each entry of a norm's weight or of a bias
    is a group of its own; the nuclear norm takes the first axis as rows and all others as columns; every other
    regularizer stays as it is.
    """
    axes = tuple(range(len(shape)))
    vector = role.kind in ("norm", "bias")
    if isinstance(regularizer, NuclearNorm):
        if vector:
            raise ValueError(f"{name} (shape {shape}) is not a matrix: NuclearNorm cannot regularize a {role.kind}")
        return dataclasses.replace(regularizer, row_dims=axes[:1], column_dims=axes[1:])
    if not isinstance(regularizer, Grouped):
        return regularizer
    grouped: Any = regularizer  # a dataclass with a field dims, as all of them are
    if vector:
        return dataclasses.replace(grouped, dims=())
    kept = role.input_axis if by == "input" else role.output_axis
    if kept is None:
        other = WAYS[1 - WAYS.index(by)]
        raise ValueError(
            f"{name} (shape {shape}) belongs to a grouped convolution, in which one {by} channel is not a slice of the "
            f"weight: choose by={other!r} or exclude it"
        )
    return dataclasses.replace(grouped, dims=axes[:kept] + axes[kept + 1 :])
