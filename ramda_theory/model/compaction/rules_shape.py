"""Rules of operations that move entries: views, permutations, slices, concatenation, padding."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from torch import fx

from ramda_theory.model.compaction.analysis import Analysis, Unproved, rule
from ramda_theory.model.compaction.units import Value, Weight


def as_value(an: Analysis, node: fx.Node, each: Value | Weight) -> Value:
    """A parameter that is no matrix of a layer, such as a position embedding, with channels along its last axis."""
    if isinstance(each, Value):
        return each
    long = [axis for axis, n in enumerate(each.shape) if n > 1]
    value = each.as_value(long[-1] if long and each.leaf.learned else None, "")
    an.values.append(value)
    return value


@rule("view.default", "reshape.default", "_unsafe_view.default", "flatten.using_ints", "unflatten.int")
def view(an: Analysis, node: fx.Node, x: Any, *args: Any, **kwargs: Any) -> Any:
    x = as_value(an, node, x)
    shape = tuple(node.meta["val"].shape)
    out = an.moved(node, x, lambda places: places.reshape(shape), whole=True)
    an.resized.append((out.where, out))
    return out


@rule("permute.default", "transpose.int", "t.default", "numpy_T.default")
def permute(an: Analysis, node: fx.Node, x: Any, *args: Any) -> Any:
    rank = len(x.shape)
    name = str(node.target)
    if "permute" in name:
        order = tuple(axis % rank for axis in args[0])
    elif "transpose" in name:
        one, other = (axis % rank for axis in args)
        order = tuple({one: other, other: one}.get(axis, axis) for axis in range(rank))
    else:
        order = tuple(reversed(range(rank)))
    if isinstance(x, Weight):
        return x.permuted(order)
    return an.moved(node, x, lambda places: places.transpose(order))


@rule("unsqueeze.default")
def unsqueeze(an: Analysis, node: fx.Node, x: Any, dim: int) -> Any:
    x = as_value(an, node, x)
    axis = dim % (len(x.shape) + 1)
    return an.moved(node, x, lambda places: np.expand_dims(places, axis))


@rule("squeeze.dim", "squeeze.default", "squeeze.dims")
def squeeze(an: Analysis, node: fx.Node, x: Any, *args: Any) -> Any:
    x = as_value(an, node, x)
    shape = tuple(node.meta["val"].shape)
    if not args:
        axes = tuple(axis for axis, n in enumerate(x.shape) if n == 1)
    else:
        named = args[0] if isinstance(args[0], (tuple, list)) else (args[0],)
        axes = tuple(axis % len(x.shape) for axis in named if x.shape[axis] == 1)
    assert len(shape) == len(x.shape) - len(axes)
    return an.moved(node, x, lambda places: places.squeeze(axes))


@rule("expand.default", "expand_as.default", "broadcast_to.default")
def expand(an: Analysis, node: fx.Node, x: Any, *args: Any, **kwargs: Any) -> Any:
    x = as_value(an, node, x)
    rank = len(node.meta["val"].shape)
    out = an.moved(node, x, lambda places: places.reshape((1,) * (rank - places.ndim) + places.shape))
    an.resized.append((out.where, out))
    return out


@rule("slice.Tensor")
def slice_(an: Analysis, node: fx.Node, x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    x = as_value(an, node, x)
    if tuple(node.meta["val"].shape) == x.shape and step == 1:
        return an.moved(node, x, lambda places: places)
    axis = dim % len(x.shape)
    return _fixing(an, node, x, axis, f"a slice between fixed bounds is taken in {x.where or 'the model'}")


@rule("select.int")
def select(an: Analysis, node: fx.Node, x: Any, dim: int, index: int) -> Any:
    x = as_value(an, node, x)
    axis = dim % len(x.shape)
    return _fixing(an, node, x, axis, f"single channels are selected in {x.where or 'the model'}", drop=True)


@rule("unbind.int")
def unbind(an: Analysis, node: fx.Node, x: Any, dim: int = 0) -> Any:
    x = as_value(an, node, x)
    axis = dim % len(x.shape)
    why = f"single channels are selected in {x.where or 'the model'}"
    return tuple(_fixing(an, node, x, axis, why, drop=True, index=i) for i in range(x.shape[axis]))


def _fixing(an: Analysis, node: fx.Node, x: Value, axis: int, why: str, drop: bool = False, index: int = 0) -> Value:
    """Part of ``x`` along an axis that must keep its size."""
    if x.ids is None:
        return an.value(node, index=index)
    ids, const = an.only(x, [i for i in range(len(x.shape)) if i != axis], why)
    if ids.size == 1:
        return an.value(node, index=index)
    if drop:
        ids, const = ids.squeeze(axis), const.squeeze(axis)
    out = an.value(node, ids, const, index)

    def backward() -> None:
        if out.demand is not None:
            x.need(np.expand_dims(out.demand, axis) if drop else out.demand)

    an.backward(backward)
    return out


@rule("split.Tensor", "split_with_sizes.default", "chunk.default")
def split(an: Analysis, node: fx.Node, x: Any, sizes: Any, dim: int = 0) -> Any:
    x = as_value(an, node, x)
    axis = dim % len(x.shape)
    parts = [tuple(part.shape)[axis] for part in node.meta["val"]]
    edges = np.cumsum([0, *parts])
    if axis not in x.channels:
        return tuple(an.moved(node, x, lambda places: places, index=i) for i in range(len(parts)))
    if len(set(parts)) > 1:
        why = f"parts of different sizes are taken in {x.where or 'the model'}"
        return tuple(_fixing(an, node, x, axis, why, index=i) for i in range(len(parts)))
    assert x.ids is not None
    pieces = np.split(x.ids, edges[1:-1], axis=axis)
    for piece in pieces[1:]:  # as many have to leave in every part
        an.units.tie(pieces[0], piece)
    outs = []
    for i in range(len(parts)):
        part = [slice(None)] * len(x.shape)
        part[axis] = slice(edges[i], edges[i + 1])
        outs.append(an.moved(node, x, operator.itemgetter(tuple(part)), index=i))
        an.resized.append((outs[-1].where, outs[-1]))
    return tuple(outs)


@rule("cat.default")
def cat(an: Analysis, node: fx.Node, tensors: Any, dim: int = 0) -> Any:
    tensors = [as_value(an, node, each) for each in tensors]
    shape = tuple(node.meta["val"].shape)
    axis = dim % len(shape)
    if any(len(each.shape) != len(shape) for each in tensors):
        raise Unproved("an empty tensor is concatenated")
    if not any(each.channels for each in tensors):
        return an.value(node)
    others = {a for each in tensors for a in each.channels if a != axis}
    along = any(axis in each.channels for each in tensors)
    others = {a for a in others if all(a in each.channels or each.shape[a] == 1 for each in tensors)}
    parts = []
    for each in tensors:
        axes = others | ({axis} if along else set())
        if each.ids is None or not set(each.channels) & axes:
            own = tuple(n if i in axes else 1 for i, n in enumerate(each.shape))
            fresh = an.units.new(int(np.prod(own))).reshape(own)
            an.units.pin(fresh, "it is concatenated, and no channel of a layer")
            an.keep(each, "it is concatenated along another axis")
            parts.append((each, fresh, np.full(own, np.nan)))
            continue
        ids, const = an.only(each, axes, "it is concatenated along another axis")
        if along and ids.shape[axis] == 1 and each.shape[axis] > 1:
            ids, const = np.repeat(ids, each.shape[axis], axis), np.repeat(const, each.shape[axis], axis)
        parts.append((each, ids, const))
    if not along:  # the same channels in every part
        for _, ids, _ in parts[1:]:
            an.units.tie(parts[0][1], ids)
        consts = np.broadcast_arrays(*(const for _, _, const in parts))
        const = np.where(np.all([c == consts[0] for c in consts], axis=0), consts[0], np.nan)
        ids = np.broadcast_arrays(*(ids for _, ids, _ in parts))[0]
    else:
        cross = [np.max([ids.shape[a] for _, ids, _ in parts]) if a != axis else 0 for a in range(len(shape))]

        def wide(array: np.ndarray) -> np.ndarray:
            return np.broadcast_to(array, [array.shape[a] if a == axis else cross[a] for a in range(len(shape))])

        ids = np.concatenate([wide(ids) for _, ids, _ in parts], axis=axis)
        const = np.concatenate([wide(const) for _, _, const in parts], axis=axis)
    out = an.value(node, ids, const)

    def backward() -> None:
        if out.demand is None:
            return
        start = 0
        for each, own, _ in parts:
            mask = out.demand
            if along:
                mask = out.demand.take(range(start, start + own.shape[axis]), axis)
                start += own.shape[axis]
            each.need(mask)

    an.backward(backward)
    return out


@rule("constant_pad_nd.default")
def pad(an: Analysis, node: fx.Node, x: Any, widths: Any, number: float = 0.0) -> Any:
    """Constants stay so where they are what is padded with."""
    return _padded(an, node, as_value(an, node, x), widths, number)


@rule("pad.default")
def pad_by_mode(an: Analysis, node: fx.Node, x: Any, widths: Any, mode: str = "constant", number: Any = None) -> Any:
    """What is padded with parts of itself stays constant."""
    return _padded(an, node, as_value(an, node, x), widths, float(number or 0.0) if mode == "constant" else None)


def _padded(an: Analysis, node: fx.Node, x: Value, widths: Any, number: float | None) -> Value:
    rank = len(x.shape)
    padded = {rank - 1 - i // 2 for i, n in enumerate(widths) if n}
    if padded & set(x.channels):
        raise Unproved("channels are padded")
    if x.ids is None or x.const is None:
        return an.value(node)
    const = x.const if number is None or not padded else np.where(x.const == number, x.const, np.nan)
    out = an.value(node, x.ids, const)
    an.backward(lambda: x.need(out.demand) if out.demand is not None else None)
    return out


@rule("repeat_interleave.self_int")
def repeat_interleave(an: Analysis, node: fx.Node, x: Any, repeats: int, dim: Any = None, **kwargs: Any) -> Any:
    x = as_value(an, node, x)
    if dim is None:
        raise Unproved("all entries are repeated")
    axis = dim % len(x.shape)
    if axis not in x.channels:
        return an.moved(node, x, lambda places: places)
    return an.moved(node, x, lambda places: np.repeat(places, repeats, axis))


@rule("pixel_shuffle.default")
def pixel_shuffle(an: Analysis, node: fx.Node, x: Value, factor: int) -> Any:
    axis = len(x.shape) - 3
    ids, const = an.only(x, [axis], "channels become pixels")
    blocks = ids.reshape(-1, factor * factor)
    if ids.size == 1 or len(blocks) == 1:
        raise Unproved("channels become pixels")
    an.units.tie(blocks, blocks[:, :1])
    inside = const.reshape(-1, factor * factor)
    same = np.where((inside == inside[:, :1]).all(axis=1), inside[:, 0], np.nan)
    shape = [1] * len(x.shape)
    shape[axis] = len(blocks)
    out = an.value(node, blocks[:, 0].reshape(shape), same.reshape(shape))
    x_shape = ids.shape

    def backward() -> None:
        if out.demand is not None:
            x.need(np.repeat(out.demand.ravel(), factor * factor).reshape(x_shape))

    an.backward(backward)
    return out
