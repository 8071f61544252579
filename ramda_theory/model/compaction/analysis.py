"""Which units of a traced model can leave: what is constant, from inputs to outputs; what is needed, back from them.

A unit leaves if, at every position that carries it, the value is not needed: either nobody reads it (a zero column in
every consumer), or it is a constant that all who read it can absorb in a bias or in the count of a norm.  An operation
without a rule needs all it gets, so that nothing is assumed about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from ramda_theory.model.compaction.trace import Trace, owner
from ramda_theory.model.compaction.units import Ids, Leaf, Units, Value, Weight

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}
"""Name of an ATen operation -> rule: (analysis, node, *args, **kwargs) -> its value or values."""


class Unproved(Exception):
    """Why a rule proves nothing about an operation: then all that it reads is kept."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of these operations."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


@dataclass(frozen=True, eq=False)
class Site:
    """A place where constant channels can be absorbed.

    Parameters
    ----------
    kind : {"bias", "layer_norm", "rms_norm", "group_norm"}
    module : str
    ids, const : arrays
        Units of the channels read, and their constants.
    weight : array or None
        (out, in) matrix by which constants enter the bias.
    bias : str
        The bias: it may have to be made.
    leaf : Leaf or None
        The weight's leaf.
    out : int array or None
        Units of the outputs.
    """

    kind: str
    module: str
    ids: Ids
    const: np.ndarray
    weight: np.ndarray | None = None
    bias: str = ""
    leaf: Leaf | None = None
    out: Ids | None = None


@dataclass
class Analysis:
    """The labelled graph of a model.

    Parameters
    ----------
    model : torch.nn.Module
    traced : Trace
    training : bool
        Whether constants must also hold in training mode.
    fixed : set of str
        Modules that keep their sizes.
    """

    model: nn.Module
    traced: Trace
    training: bool = False
    fixed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.units = Units()
        self.leaves: dict[str, Leaf] = {}
        self.values: list[Value] = []
        self.sites: list[Site] = []
        self.resized: list[tuple[str, Value]] = []
        self.why: dict[int, str] = {}
        self.unknown: dict[str, str] = {}
        self.linears: dict[str, int] = {}
        self._backward: list[Callable[[], None]] = []
        self._counts: dict[str, int] = {}
        self._run()
        self.live = self._solve()

    # -- forwards ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        environment: dict[fx.Node, Any] = {}
        made: dict[int, Leaf] = {}  # tied parameters appear under one name each
        for node in self.traced.graph.nodes:
            for each in node.all_input_nodes:
                if each.name in self.traced.tensors:
                    self._counts[each.name] = self._counts.get(each.name, 0) + 1
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                if node.name in self.traced.tensors:
                    name, data = self.traced.tensors[node.name]
                    wide = data.double() if data.is_floating_point() else data
                    new = Leaf(name, wide, self.units, name in self.traced.learned)
                    leaf = made.setdefault(data.data_ptr() or -len(made) - 1, new)
                    leaf = leaf if leaf.data.shape == data.shape else new
                    self.leaves[name] = leaf
                    environment[node] = Weight(leaf, tuple(range(data.ndim)))
                else:
                    environment[node] = self.value(node)
            elif node.op == "output":
                for each in flat(environment, node.args):
                    self.keep(each, "the model returns it")
            else:
                environment[node] = self._apply(node, environment)
        for name, why in self.fixed.items():
            self._fix(name, why)

    def _fix(self, module: str, why: str) -> None:
        """Keep the sizes of all that a module computes and owns."""
        for value in self.values:
            if value.where == module and value.ids is not None:
                self.units.pin(value.ids, why)
        for name, leaf in self.leaves.items():
            if name.rpartition(".")[0] == module:
                Weight(leaf, tuple(range(leaf.data.ndim))).pin(why)

    def _apply(self, node: fx.Node, environment: dict[fx.Node, Any]) -> Any:
        args = fx.map_arg(node.args, lambda each: environment[each])
        kwargs = fx.map_arg(node.kwargs, lambda each: environment[each])
        name = name_of(node)
        if name == "getitem":
            pair: Any = args
            return pair[0][pair[1]]
        found = RULES.get(name)
        if found is None:
            return self.opaque(node, args, kwargs)
        try:
            return found(self, node, *args, **kwargs)
        except Unproved as error:
            return self.opaque(node, args, kwargs, str(error))

    def value(self, node: fx.Node, ids: Ids | None = None, const: np.ndarray | None = None, index: int = 0) -> Value:
        """What a node computes (the ``index``-th, of several)."""
        meta = node.meta.get("val")
        meta = meta[index] if isinstance(meta, (tuple, list)) else meta
        shape = tuple(meta.shape) if isinstance(meta, torch.Tensor) else ()
        if ids is not None:
            rank = len(shape)
            ids = ids.reshape((1,) * (rank - ids.ndim) + ids.shape)
            const = None if const is None else const.reshape(ids.shape)
            if ids.size == 1:
                self.units.pin(ids, "it is the only channel")
                ids = const = None
        value = Value(shape, owner(node), ids, const)
        self.values.append(value)
        return value

    def opaque(self, node: fx.Node, args: Any, kwargs: Any, why: str = "") -> Any:
        """The values of an operation of which nothing is known: all that it gets stays."""
        name = name_of(node)
        why = why or f"nothing is known about {name.removesuffix('.default')}"
        why += f" in {owner(node) or 'the model'}"
        for each in flat(None, (args, kwargs)):
            if each.leaf.learned if isinstance(each, Weight) else each.ids is not None:
                self.unknown[name] = why
            self.keep(each, why)
        meta = node.meta.get("val")
        if isinstance(meta, (tuple, list)):
            return tuple(self.value(node, index=i) for i in range(len(meta)))
        return self.value(node)

    def keep(self, each: Value | Weight, why: str) -> None:
        """No channel of a tensor may leave."""
        if isinstance(each, Weight):
            each.pin(why)
        elif each.ids is not None:
            self.units.pin(each.ids, why)

    def only(self, value: Value, axes: Iterable[int], why: str) -> tuple[Ids, np.ndarray]:
        """Units and constants along some axes; what differs along others is tied together, for these keep their size.

        Of a tensor without channels it is one unit, which stays.
        """
        if value.ids is None:
            shape = (1,) * len(value.shape)
            ids = self.units.new(1).reshape(shape)
            self.units.pin(ids, f"what {value.where or 'the model'} gives has no channels that could leave")
            return ids, np.full(shape, np.nan)
        assert value.const is not None
        ids, const = value.ids, value.const
        for axis in range(ids.ndim):
            if axis not in axes and ids.shape[axis] > 1:
                first = ids.take([0], axis)
                self.units.tie(ids, first)
                same = (const == const.take([0], axis)).all(axis=axis, keepdims=True)
                ids, const = first, np.where(same, const.take([0], axis), np.nan)
        if ids.size == 1:
            self.units.pin(ids, why)
        return ids, const

    def moved(self, node: fx.Node, value: Value, function: Callable[[np.ndarray], np.ndarray], whole: bool = False,
              index: int = 0) -> Value:  # fmt: skip
        """The entries of another tensor, moved as ``function`` moves those of an array (``whole``: of its shape)."""
        if value.ids is None:
            return self.value(node, index=index)
        assert value.const is not None
        places = np.arange(value.ids.size).reshape(value.ids.shape)
        places = function(np.broadcast_to(places, value.shape) if whole else places)
        if whole:
            for axis in range(places.ndim):
                first = places.take([0], axis)
                if places.shape[axis] > 1 and (places == first).all():
                    places = first
        out = self.value(node, value.ids.ravel()[places], value.const.ravel()[places], index)
        ids = value.ids

        def backward() -> None:
            if out.demand is not None:
                mask = np.zeros(ids.size, dtype=bool)
                mask[places.reshape(out.demand.shape)[out.demand]] = True
                value.need(mask.reshape(ids.shape))

        self.backward(backward)
        return out

    def backward(self, function: Callable[[], None]) -> None:
        """Have ``function`` hand demand from a node's outputs to its inputs."""
        self._backward.append(function)

    def uses(self, weight: Weight | None) -> int:
        """How many nodes take a parameter."""
        if weight is None:
            return 0
        names = [key for key, (name, _) in self.traced.tensors.items() if self.leaves.get(name) is weight.leaf]
        return sum(self._counts.get(name, 0) for name in names)

    def module(self, node: fx.Node) -> nn.Module | None:
        """The innermost module that runs a node."""
        name = owner(node)
        try:
            return self.model.get_submodule(name)
        except AttributeError:
            return None

    # -- backwards --------------------------------------------------------------------------------------------------

    def _solve(self) -> Ids:
        """Which units stay (by number, whatever they are tied to)."""
        units = self.units
        while True:
            live = self._demanded()
            more = self._not_a_block(live) or self._all_gone(live)
            if not more:
                return live
            for ids, why in more:
                units.pin(ids, why)

    def _demanded(self) -> np.ndarray:
        """The units that some position needs, given those pinned."""
        units = self.units
        every = np.arange(len(units))
        roots = units.find(every)
        live = np.zeros(len(units), dtype=bool)
        for unit, why in units.pinned.items():
            live[roots[unit]] = True
            self.why.setdefault(int(roots[unit]), why)
        while True:
            # What stays must hold what it held: it needs all it needed.
            for value in self.values:
                if value.ids is not None:
                    value.demand = live[roots[value.ids]]
            for function in reversed(self._backward):
                function()
            now = live.copy()
            for value in reversed(self.values):  # the last to be read tells why
                if value.ids is not None and value.demand is not None:
                    carried = roots[value.ids]
                    needed = carried[value.demand]
                    for unit in np.unique(needed[~now[needed]]):
                        if int(unit) not in self.why:
                            self.why[int(unit)] = value.reason((carried == unit) & value.demand)
                    now[needed] = True
            if np.array_equal(now, live):
                found: Ids = live[roots]
                return found
            live = now

    def stays(self, ids: Ids) -> np.ndarray:
        """Which units stay."""
        found: np.ndarray = self.live[ids]
        return found

    def _not_a_block(self, live: np.ndarray) -> list[tuple[Ids, str]]:
        """Tensors of which more than slices would leave."""
        found = []
        for value in self.values:
            if len(value.channels) > 1 and value.ids is not None:
                kept = live[value.ids]
                box = np.ones_like(kept)
                for axis in range(kept.ndim):
                    box &= kept.any(axis=tuple(i for i in range(kept.ndim) if i != axis), keepdims=True)
                if not np.array_equal(box, kept):
                    found.append((value.ids[box & ~kept], f"what would leave in {value.where} is no whole slice"))
        return found

    def _all_gone(self, live: np.ndarray) -> list[tuple[Ids, str]]:
        """Axes of which nothing would stay: one channel is kept."""
        axes = [ids for leaf in self.leaves.values() for ids in leaf.axes.values()]
        axes += [value.ids.ravel() for value in self.values if value.ids is not None]
        return [(ids[:1], "one channel has to stay") for ids in axes if len(ids) and not live[ids].any()][:1]


def name_of(node: fx.Node) -> str:
    """Name of an operation: add.Tensor, relu.default."""
    target: Any = node.target
    return getattr(target, "__name__", str(target))


def flat(environment: dict[fx.Node, Any] | None, arguments: Any) -> list[Value | Weight]:
    """The tensors in nested arguments."""
    found: list[Value | Weight] = []

    def visit(each: Any) -> None:
        if isinstance(each, fx.Node):
            visit(environment[each] if environment is not None else None)
        elif isinstance(each, (Value, Weight)):
            found.append(each)
        elif isinstance(each, (tuple, list)):
            for item in each:
                visit(item)
        elif isinstance(each, dict):
            visit(tuple(each.values()))

    visit(arguments)
    return found
