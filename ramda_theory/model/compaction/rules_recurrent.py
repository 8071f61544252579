"""Rules of recurrent layers, whose units are written and read by every gate."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx

from ramda_theory.model.compaction.analysis import Analysis, Site, Unproved, name_of, rule
from ramda_theory.model.compaction.trace import owner
from ramda_theory.model.compaction.units import Value, Weight

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
