"""Rules of layers that read channels and write others: linear maps, embeddings, attention, norms, recurrences."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx, nn

from ramda_theory.model.compaction.analysis import Analysis, Site, Unproved, name_of, rule
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


@rule("matmul.default", "mm.default", "bmm.default")
def matmul(an: Analysis, node: fx.Node, x: Any, y: Any) -> Any:
    if isinstance(y, Weight) and len(y.shape) == 2:
        x = as_value(an, node, x)
        return contraction(an, node, x, len(x.shape) - 1, y, 0, None)
    x, y = (as_value(an, node, each) for each in (x, y))
    return _heads(an, node, [x, y], zero=(0, 1))


@rule("scaled_dot_product_attention.default")
def attention(an: Analysis, node: fx.Node, q: Any, k: Any, v: Any, mask: Any = None, *args: Any, **kwargs: Any) -> Any:
    values = [as_value(an, node, each) for each in (q, k, v)]
    if mask is not None:
        mask = as_value(an, node, mask)
        if len(mask.shape) > 2 and mask.shape[-3] > 1:
            for each in values:
                an.keep(each, "the attention mask differs between heads")
        an.keep(mask, "it masks attention")
    shared = kwargs.get("enable_gqa", False) and values[1].shape[-3] != values[0].shape[-3]
    return _heads(an, node, values, zero=(2,), grouped=values[0].shape[-3] // values[1].shape[-3] if shared else 1)


def _heads(an: Analysis, node: fx.Node, values: list[Value], zero: tuple[int, ...], grouped: int = 1) -> Value:
    """Matrices that meet batch by batch: heads leave as a whole, and one is zero where one of ``zero`` is."""
    rank = len(node.meta["val"].shape)
    parts = []
    for position, each in enumerate(values):
        axes = range(len(each.shape) - 2)
        ids, const = an.only(each, axes, "a matrix product over all channels")
        if grouped > 1 and position and ids.shape[-3] > 1:
            ids, const = np.repeat(ids, grouped, -3), np.repeat(const, grouped, -3)
        parts.append(
            (ids.reshape((1,) * (rank - ids.ndim) + ids.shape), const.reshape((1,) * (rank - ids.ndim) + ids.shape))
        )
    for axis in range(rank - 2):  # an axis that one has in full, without channels, keeps its size
        sizes = [(ids.shape[axis], each) for (ids, _), each in zip(parts, values, strict=True)]
        if any(n > 1 for n, _ in sizes) and any(n == 1 and _size(each, axis, rank) > 1 for n, each in sizes):
            for ids, _ in parts:
                an.units.pin(ids, "a matrix product with what is fixed")
    labelled = [ids for ids, _ in parts if ids.size > 1]
    for ids in labelled[1:]:
        an.units.tie(labelled[0], ids)
    if not labelled:
        return an.value(node)
    shape = np.broadcast_shapes(*(ids.shape for ids in labelled))
    constants = np.full(shape, np.nan)
    for position in zero:
        constants = np.where(parts[position][1] == 0, 0.0, constants)
    out = an.value(node, np.broadcast_to(labelled[0], shape), constants)

    def backward() -> None:
        if out.demand is not None:
            for position, each in enumerate(values):
                mask: Any = out.demand
                if grouped > 1 and position:
                    mask = mask.reshape(*mask.shape[:-3], -1, grouped, *mask.shape[-2:]).any(-3)
                each.need(_trim(mask, len(each.shape)))
        else:
            for each in values:
                each.need(np.ones((1,) * len(each.shape), dtype=bool))

    an.backward(backward)
    return out


def _trim(mask: np.ndarray, rank: int) -> np.ndarray:
    return np.asarray(mask.any(axis=tuple(range(mask.ndim - rank)))) if mask.ndim > rank else mask


def _size(each: Value, axis: int, rank: int) -> int:
    shift = rank - len(each.shape)
    return each.shape[axis - shift] if axis >= shift else 1


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


# -- norms ------------------------------------------------------------------------------------------------------------


@rule("_native_batch_norm_legit_no_training.default", "native_batch_norm.default")
def batch_norm(an: Analysis, node: fx.Node, x: Any, gamma: Any, beta: Any, mean: Any, var: Any, *rest: Any) -> Any:
    ids, const = an.only(x, [1], "every slice meets the norm alike")
    parameters = [each for each in (gamma, beta, mean, var) if each is not None]
    if not all(isinstance(each, Weight) for each in parameters) or mean is None:
        raise Unproved("the norm has no fixed statistics")
    for each in parameters:
        an.units.tie(each.axis(0), ids.ravel())
    eps = rest[-1]
    n = x.shape[1]
    g = np.ones(n) if gamma is None else gamma.data.numpy()
    b = np.zeros(n) if beta is None else beta.data.numpy()
    c = np.broadcast_to(const.ravel(), (n,))
    found = (c - mean.data.numpy()) / np.sqrt(var.data.numpy() + eps) * g + b
    if an.training:  # there a constant is its own mean
        found = np.where(found == b, b, np.nan)
    shape = [-1 if i == 1 else 1 for i in range(len(x.shape))]
    out = an.value(node, np.broadcast_to(ids.ravel(), (n,)).reshape(shape), np.where(g == 0, b, found).reshape(shape))

    def backward() -> None:
        wanted = np.ones(n, dtype=bool) if out.demand is None else out.demand.ravel()
        x.need((wanted & (g != 0)).reshape(shape))

    an.backward(backward)
    return out, an.value(node, index=1), an.value(node, index=2)


@rule("layer_norm.default")
def layer_norm(
    an: Analysis, node: fx.Node, x: Any, shape: Any, gamma: Any = None, beta: Any = None, *rest: Any, **kwargs: Any
) -> Any:
    return _last_axis_norm(an, node, "layer_norm", nn.LayerNorm, x, shape, gamma, beta)


@rule("rms_norm.default", "_fused_rms_norm.default")
def rms_norm(an: Analysis, node: fx.Node, x: Any, shape: Any, gamma: Any = None, *rest: Any, **kwargs: Any) -> Any:
    out = _last_axis_norm(an, node, "rms_norm", nn.Module, x, shape, gamma, None)
    return (out, an.value(node, index=1)) if isinstance(node.meta["val"], (tuple, list)) else out


def _last_axis_norm(
    an: Analysis, node: fx.Node, kind: str, cls: type[nn.Module], x: Any, shape: Any, gamma: Any, beta: Any
) -> Any:
    """Every output depends on every input, but a constant input can be counted without being there."""
    parameters = [each for each in (gamma, beta) if each is not None]
    if len(shape) != 1 or not all(isinstance(each, Weight) for each in parameters):
        raise Unproved("a norm over several axes")
    x, last, n = as_value(an, node, x), len(x.shape) - 1, x.shape[-1]
    ids, const = an.only(x, [last], "every slice meets the norm alike")
    module = an.module(node)
    counted = isinstance(module, cls) and not has_hooks(module) and _alone(an, node, module, parameters)
    for each in parameters:
        an.units.tie(each.axis(0), ids.ravel())
    g = np.ones(n) if gamma is None else gamma.data.numpy()
    b = np.zeros(n) if beta is None else beta.data.numpy()
    c = np.broadcast_to(const.ravel(), (n,))
    const_out = np.where(g == 0, b, np.where(c == 0, 0.0, np.nan) if kind == "rms_norm" else np.nan)
    full = [1] * last + [n]
    out = an.value(node, np.broadcast_to(ids.ravel(), (n,)).reshape(full), const_out.reshape(full))
    if counted and ids.size > 1:
        an.sites.append(Site(kind, owner(node), ids.ravel(), c))
    known = ~np.isnan(c) & counted

    def backward() -> None:
        wanted = np.ones(n, dtype=bool) if out.demand is None else out.demand.ravel()
        if wanted.any():
            x.need(np.where(known, wanted & (g != 0), True).reshape(full))

    an.backward(backward)
    return out


def _alone(an: Analysis, node: fx.Node, module: nn.Module, parameters: list[Weight]) -> bool:
    """Whether a norm is called once and its parameters are its own."""
    calls = [each for each in an.traced.graph.nodes if each.op == "call_function" and each.target is node.target]
    once = sum(owner(each) == owner(node) for each in calls) == 1
    return once and all(each.leaf.name.rpartition(".")[0] == owner(node) for each in parameters)


@rule("group_norm.default")
def group_norm(
    an: Analysis, node: fx.Node, x: Any, groups: int, gamma: Any = None, beta: Any = None, *rest: Any
) -> Any:
    parameters = [each for each in (gamma, beta) if each is not None]
    if not all(isinstance(each, Weight) for each in parameters):
        raise Unproved("the norm's parameters are computed")
    n = x.shape[1]
    ids, const = an.only(x, [1], "every slice meets the norm alike")
    for each in parameters:
        an.units.tie(each.axis(0), ids.ravel())
    ids = np.broadcast_to(ids.ravel(), (n,))
    module = an.module(node)
    counted = type(module) is nn.GroupNorm and not has_hooks(module) and _alone(an, node, module, parameters)
    if not counted:
        blocks = ids.reshape(groups, -1)
        an.units.tie(blocks, blocks[:, :1])
    g = np.ones(n) if gamma is None else gamma.data.numpy()
    b = np.zeros(n) if beta is None else beta.data.numpy()
    c = np.broadcast_to(const.ravel(), (n,))
    shape = [-1 if i == 1 else 1 for i in range(len(x.shape))]
    out = an.value(node, ids.reshape(shape), np.where(g == 0, b, np.nan).reshape(shape))
    if counted and len(set(ids)) > 1:
        an.sites.append(Site("group_norm", owner(node), ids, c))
    known = ~np.isnan(c) & counted

    def backward() -> None:
        wanted = np.ones(n, dtype=bool) if out.demand is None else out.demand.ravel()
        by_group = np.repeat(wanted.reshape(groups, -1).any(axis=1), n // groups)
        x.need(np.where(known, wanted & (g != 0), by_group).reshape(shape))

    an.backward(backward)
    return out


# -- recurrent layers -------------------------------------------------------------------------------------------------

GATES = {"lstm.input": 4, "gru.input": 3, "rnn_tanh.input": 1, "rnn_relu.input": 1}


@rule(*GATES)
def recurrent(
    an: Analysis,
    node: fx.Node,
    x: Any,
    initial: Any,
    parameters: Any,
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    both: bool,
    batch_first: bool,
) -> Any:
    """A hidden unit leaves all layers and directions together, which share a size, if nobody reads it or it is 0."""
    name = name_of(node)
    gates = GATES[name]
    states = initial if isinstance(initial, (tuple, list)) else (initial,)
    per = 4 if has_biases else 2
    weights = list(parameters)
    plain = all(isinstance(each, Weight) for each in weights) and len(weights) == per * layers * (2 if both else 1)
    if not plain or not all(_zeros(node, each) for each in states):
        raise Unproved("a recurrent layer with projections, or whose first state is given")
    ends = 2 if both else 1
    hidden = weights[1].shape[1]
    units = weights[1].axis(1)
    last = len(x.shape) - 1
    ids, const = an.only(x, [last], "every step reads its inputs alike")
    c = np.broadcast_to(const.ravel(), (x.shape[-1],))
    reads = np.zeros((hidden, hidden), dtype=bool)  # [unit, unit it reads]
    inputs = np.zeros((hidden, x.shape[-1]), dtype=bool)
    silent = np.ones(hidden, dtype=bool)
    absorbed: list[bool] = []
    for layer in range(layers):
        for end in range(ends):
            own = weights[per * (layer * ends + end) : per * (layer * ends + end + 1)]
            from_input, from_hidden, *biases = own
            for each in own:
                an.units.tie(each.axis(0).reshape(gates, hidden), units)
            an.units.tie(from_hidden.axis(1), units)
            by_input = (from_input.data != 0).reshape(gates, hidden, -1).numpy()
            by_hidden = (from_hidden.data != 0).reshape(gates, hidden, hidden).numpy()
            reads |= by_hidden.any(axis=0)
            decisive = 2 if gates > 1 else 0  # of an LSTM and a GRU: what is written into the cell
            nothing = ~by_input[decisive].any(axis=1) & ~by_hidden[decisive].any(axis=1)
            total = np.zeros(hidden)
            for bias in biases:
                part = bias.data.reshape(gates, hidden)[decisive].numpy()
                total += np.abs(part) if name == "gru.input" else part
            silent &= nothing & (total == 0)
            if layer:
                an.units.tie(from_input.axis(1).reshape(ends, hidden), units)
                reads |= by_input.any(axis=0).reshape(hidden, ends, hidden).any(axis=1)
            else:
                an.units.tie(from_input.axis(1), ids.ravel())
                inputs |= by_input.any(axis=0)
                bias_name = (
                    biases[0].leaf.name if biases and an.uses(biases[0]) == 1 and an.uses(from_input) == 1 else ""
                )
                absorbed.append(bias_name != "")
                if bias_name:
                    matrix, rows = from_input.data.numpy(), from_input.axis(0)
                    an.sites.append(
                        Site("bias", owner(node), from_input.axis(1), c, matrix, bias_name, from_input.leaf, rows)
                    )
    free = (c == 0) | (~np.isnan(c) & all(absorbed))
    zero = np.where(silent, 0.0, np.nan)
    shape = [1] * last + [-1]
    out = an.value(node, np.tile(units, ends).reshape(shape), np.tile(zero, ends).reshape(shape))
    rest = [an.value(node, units, index=i + 1) for i in range(len(node.meta["val"]) - 1)]
    held = Value((hidden,), owner(node), units.copy(), zero)
    an.values.append(held)

    def backward() -> None:
        assert held.demand is not None
        for each in rest:
            if each.demand is not None:
                held.demand |= each.demand.ravel()
        if out.demand is not None:
            held.demand |= out.demand.reshape(ends, hidden).any(axis=0)
        else:
            held.demand[:] = True
        while True:
            more = reads[held.demand].any(axis=0) & ~silent & ~held.demand
            if not more.any():
                break
            held.demand |= more
        x.need((inputs[held.demand].any(axis=0) & ~free).reshape(shape))

    an.backward(backward)
    return (out, *rest)


def _zeros(node: fx.Node, state: Any) -> bool:
    """Whether a state is a tensor of zeros made on the spot."""
    made = [each for each in node.all_input_nodes if "val" in each.meta and each.op == "call_function"]
    zeros = [each for each in made if name_of(each).startswith(("zeros", "new_zeros", "full"))]
    shapes = [tuple(each.meta["val"].shape) for each in zeros if "full" not in name_of(each) or each.args[1] == 0]
    return isinstance(state, Value) and state.ids is None and tuple(state.shape) in shapes
