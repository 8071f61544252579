"""Rules of linear maps: layers, products with weights, convolutions, embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx, nn

from ramda_theory.model.compaction.analysis import Analysis, Site, Unproved, rule
from ramda_theory.model.compaction.layers import has_hooks
from ramda_theory.model.compaction.rules_shape import as_value
from ramda_theory.model.compaction.trace import owner
from ramda_theory.model.compaction.units import Value, Weight


def contraction(
    an: Analysis,
    node: fx.Node,
    x: Value,
    axis: int,
    weight: Weight,
    read: int,
    bias: Weight | None,
    absorbs: bool = True,
) -> Value:
    """out = W x + b along one axis of ``x``: ``read`` is the axis of ``weight`` that meets it, the other is written.

    Further axes of the weight are summed over.  ``absorbs``: every place sees all of the weight, so that a constant
    channel is a constant in the output.
    """
    weight.leaf.contractions += 1
    weight.leaf.reads = weight.order[read]
    ids, const = an.only(x, [axis], f"every slice meets {weight.leaf.name} alike")
    columns = weight.axis(read)
    if ids.size == 1:
        an.units.pin(columns, "its inputs are the model's own, or no channels")
    an.units.tie(columns, ids.ravel())
    write = 1 - read
    rows = weight.axis(write)
    if bias is not None:
        an.units.tie(bias.axis(0), rows)
    matrix = weight.data.movedim((write, read), (0, 1)).reshape(len(rows), len(columns), -1)
    nonzero = (matrix != 0).any(-1).numpy()
    summed = matrix.sum(-1).numpy()
    b = np.zeros(len(rows)) if bias is None else bias.data.numpy()
    c = np.broadcast_to(const.ravel(), columns.shape)
    known = ~np.isnan(c) & (absorbs | (c == 0))
    out_const = np.where(nonzero[:, ~known].any(axis=1), np.nan, summed[:, known] @ c[known] + b)
    out_ids = rows.reshape([-1 if i == axis else 1 for i in range(len(x.shape))])
    out = an.value(node, out_ids, out_const.reshape(out_ids.shape))
    bias_name = _bias(an, node, weight, bias)
    free = known & (bias_name != "") | (c == 0)
    if x.ids is not None and x.ids.size == len(c):
        stuck = (~free & ~np.isnan(c)).reshape(x.ids.shape)
        x.remark(
            stuck, f"a constant that {'is padded with zeros' if bias_name else 'no bias can absorb'} in {owner(node)}"
        )
    if bias_name:
        an.sites.append(Site("bias", owner(node), columns, c, summed, bias_name, weight.leaf, rows))

    def backward() -> None:
        wanted = np.ones(len(rows), dtype=bool) if out.demand is None else out.demand.ravel()
        x.need((nonzero[wanted].any(axis=0) & ~free).reshape([-1 if i == axis else 1 for i in range(len(x.shape))]))

    an.backward(backward)
    return out


def _bias(an: Analysis, node: fx.Node, weight: Weight, bias: Weight | None) -> str:
    """Name of the bias that can take a constant: it may have to be made; "" if there is none."""
    if an.uses(weight) > 1 and weight.leaf.contractions > 1:
        return ""
    if bias is not None:
        return bias.leaf.name if an.uses(bias) == 1 else ""
    module, name = an.module(node), owner(node)
    takes = isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)) and "bias" in module._parameters
    return f"{name}.bias" if takes and weight.leaf.name.rpartition(".")[0] == name else ""


@rule("linear.default")
def linear(an: Analysis, node: fx.Node, x: Any, weight: Any, bias: Any = None) -> Any:
    x = as_value(an, node, x)
    if not isinstance(weight, Weight) or isinstance(bias, Value):
        raise Unproved("the weight is computed from others")
    if _owned(an, node, weight):
        an.linears[owner(node)] = an.linears.get(owner(node), 0) + 1
    return contraction(an, node, x, len(x.shape) - 1, weight, 1, bias)


def _owned(an: Analysis, node: fx.Node, weight: Weight) -> bool:
    """Whether a plain linear layer that nobody looks into runs the node."""
    module = an.module(node)
    return type(module) is nn.Linear and module.weight is not None and not has_hooks(module) and an.uses(weight) == 1


@rule("addmm.default")
def addmm(an: Analysis, node: fx.Node, bias: Any, x: Any, weight: Any, **kwargs: Any) -> Any:
    x = as_value(an, node, x)
    if not isinstance(weight, Weight) or not isinstance(bias, Weight) or kwargs:
        raise Unproved("the weight is computed from others")
    return contraction(an, node, x, len(x.shape) - 1, weight, 0, bias)


@rule(*(f"conv{n}d.{overload}" for n in (1, 2, 3) for overload in ("default", "padding")))
def convolution(
    an: Analysis,
    node: fx.Node,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    if not isinstance(weight, Weight) or isinstance(bias, Value):
        raise Unproved("the weight is computed from others")
    x = as_value(an, node, x)
    axis = len(x.shape) - len(weight.shape) + 1
    bare = padding == "valid" or (not isinstance(padding, str) and not np.any(padding))
    if groups == 1:
        return contraction(an, node, x, axis, weight, 1, bias, absorbs=bare)
    return _grouped(an, node, x, axis, weight, bias, groups, bare)


def _grouped(
    an: Analysis, node: fx.Node, x: Value, axis: int, weight: Weight, bias: Weight | None, groups: int, bare: bool
) -> Value:
    """Groups leave as a whole: depthwise, a channel with the filters that read it."""
    weight.leaf.contractions += 1
    ids, const = an.only(x, [axis], "every slice meets the filters alike")
    if ids.size == 1:
        ids = np.broadcast_to(ids, [x.shape[axis] if i == axis else 1 for i in range(len(x.shape))])
        const = np.broadcast_to(const, ids.shape)
    rows, inputs = weight.axis(0), ids.ravel()
    if weight.shape[1] > 1:
        an.units.pin(weight.axis(1), "a grouped convolution: only whole groups can leave")
    per_out, per_in = len(rows) // groups, len(inputs) // groups
    blocks_in, blocks_out = inputs.reshape(groups, per_in), rows.reshape(groups, per_out)
    an.units.tie(blocks_in, blocks_in[:, :1])
    an.units.tie(blocks_out, blocks_in[:, :1])
    if bias is not None:
        an.units.tie(bias.axis(0), rows)
    matrix = weight.data.reshape(groups, per_out, per_in, -1)
    nonzero, summed = (matrix != 0).any(-1).numpy(), matrix.sum(-1).numpy()
    c = const.reshape(groups, 1, per_in)
    known = ~np.isnan(c) & (bare | (c == 0))
    b = np.zeros((groups, per_out)) if bias is None else bias.data.numpy().reshape(groups, per_out)
    total = (summed * np.where(known, c, 0.0)).sum(-1) + b
    out_const = np.where((nonzero & ~known).any(-1), np.nan, total)
    shape = [-1 if i == axis else 1 for i in range(len(x.shape))]
    out = an.value(node, rows.reshape(shape), out_const.reshape(shape))

    def backward() -> None:
        wanted = np.ones((groups, per_out), dtype=bool)
        if out.demand is not None:
            wanted = out.demand.reshape(groups, per_out)
        x.need((wanted[:, :, None] & nonzero).any(axis=1).reshape(shape))

    an.backward(backward)
    return out


@rule(*(f"conv_transpose{n}d.{name}" for n in (1, 2, 3) for name in ("default", "input")))
def transposed(
    an: Analysis,
    node: fx.Node,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    if not isinstance(weight, Weight) or isinstance(bias, Value) or groups != 1:
        raise Unproved("a transposed convolution in groups")
    x = as_value(an, node, x)
    axis = len(x.shape) - len(weight.shape) + 1
    return contraction(an, node, x, axis, weight, 0, bias, absorbs=False)


@rule("embedding.default")
def embedding(an: Analysis, node: fx.Node, weight: Any, index: Any, *args: Any, **kwargs: Any) -> Any:
    if not isinstance(weight, Weight):
        raise Unproved("the table is computed")
    an.units.pin(weight.axis(0), "the tokens are the model's inputs")
    if isinstance(index, Value):
        an.keep(index, "it chooses tokens")
    table = weight.data.numpy()
    const = np.where((table == table[:1]).all(axis=0), table[0], np.nan)
    return an.value(node, weight.axis(1), const)
