"""Rules of operations that act entry by entry, and of those that only mix places: pooling, reductions, softmax."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import fx
from torch.nn.modules.dropout import _DropoutNd

from ramda_theory.model.compaction.analysis import Analysis, Unproved, name_of, rule
from ramda_theory.model.compaction.units import Value, Weight

ENTRYWISE = (
    *("relu", "relu6", "gelu", "silu", "sigmoid", "tanh", "hardtanh", "hardswish", "hardsigmoid", "leaky_relu", "elu"),
    *("celu", "selu", "mish", "softplus", "log_sigmoid", "hardshrink", "softshrink", "threshold", "exp", "log", "sqrt"),
    *("rsqrt", "neg", "abs", "erf", "sin", "cos", "square", "reciprocal", "clamp", "clamp_min", "clamp_max", "sign"),
    *("clone", "contiguous", "detach", "alias", "_to_copy", "to", "lift_fresh_copy", "expm1", "log1p", "tan", "atan"),
    *("add", "sub", "mul", "div", "pow", "rsub", "maximum", "minimum", "where", "masked_fill", "type_as", "softsign"),
    *("tanhshrink", "dropout", "native_dropout", "log_sigmoid_forward", "relu_", "silu_", "feature_dropout"),
)
OVERLOADS = (
    *("default", "Tensor", "Scalar", "Tensor_Scalar", "Tensor_Tensor", "self", "dtype", "dtype_layout"),
    *("ScalarSelf", "ScalarOther", "Tensor_mode"),
)
CASTS = ("clone", "contiguous", "detach", "alias", "_to_copy", "to", "lift_fresh_copy", "type_as")


@rule(*(f"{name}.{overload}" for name in ENTRYWISE for overload in OVERLOADS))
def entrywise(an: Analysis, node: fx.Node, *args: Any, **kwargs: Any) -> Any:
    """Operands lose channels together; of constants it makes constants, and of 0 times anything 0."""
    tensors = [each for each in args if isinstance(each, (Value, Weight))]
    name = name_of(node).partition(".")[0]
    if name in CASTS and isinstance(args[0], Weight):
        return args[0]
    meta = node.meta["val"]
    if isinstance(meta, (tuple, list)):
        raise Unproved("it gives several tensors")
    rank = len(meta.shape)
    channels = {axis + rank - len(e.shape) for e in tensors if isinstance(e, Value) for axis in e.channels}
    operands = [_operand(an, each, rank, channels) for each in tensors]
    channels = {axis + rank - len(e.shape) for e in operands for axis in e.channels}
    aligned = []
    for each in operands:
        shift = rank - len(each.shape)
        size = (1,) * shift + each.shape
        # An axis that another operand has in full, without channels, keeps its size.
        fixed = {a for a in channels if any(_plain(other, a - rank) for other in operands)}
        if each.ids is None:
            aligned.append((np.zeros((1,) * rank, dtype=np.int64) - 1, _number(each, rank)))
            continue
        ids, const = an.only(
            each, [a - shift for a in channels - fixed if a >= shift], "what it is combined with is fixed"
        )
        del size
        aligned.append((ids.reshape((1,) * shift + ids.shape), const.reshape((1,) * shift + const.shape)))
    labelled = [ids for ids, _ in aligned if ids.size > 1]
    if not labelled:
        return an.value(node)
    for ids in labelled[1:]:
        an.units.tie(labelled[0], ids)
    shape = np.broadcast_shapes(*(ids.shape for ids in labelled))
    ids = np.broadcast_to(next((each for each in labelled if each.shape == shape), labelled[0]), shape)
    const = _constants(an, node, args, kwargs, [const for _, const in aligned], shape)
    out = an.value(node, ids, const)

    def backward() -> None:
        if out.demand is not None:
            for each in operands:
                each.need(_to_rank(out.demand, len(each.shape)))

    an.backward(backward)
    return out


def _operand(an: Analysis, each: Value | Weight, rank: int, channels: set[int]) -> Value:
    """A tensor; a parameter takes the channels of the other operands along one axis, and has none along others."""
    if isinstance(each, Value):
        return each
    shift = rank - len(each.shape)
    long = [axis for axis, n in enumerate(each.shape) if n > 1]
    shared = [axis for axis in long if axis + shift in channels]
    if not channels and long and each.leaf.learned:
        shared = long[-1:]
    value = each.as_value(shared[0] if len(shared) == 1 else None, "")
    an.values.append(value)
    return value


def _plain(each: Value, axis: int) -> bool:
    """Whether a tensor has an axis (counted from the end) in full, without channels."""
    return -axis <= len(each.shape) and each.shape[axis] > 1 and (each.ids is None or each.ids.shape[axis] == 1)


def _number(each: Value, rank: int) -> np.ndarray:
    """The constant of a tensor without channels: it is not followed."""
    return np.full((1,) * rank, np.nan)


def _to_rank(mask: np.ndarray, rank: int) -> np.ndarray:
    return np.asarray(mask.any(axis=tuple(range(mask.ndim - rank)))) if mask.ndim > rank else mask


def _constants(
    an: Analysis, node: fx.Node, args: Any, kwargs: Any, consts: list[np.ndarray], shape: tuple[int, ...]
) -> np.ndarray:
    """What the operation gives where all operands are constants."""
    name = name_of(node).partition(".")[0]
    unknown = np.zeros(shape, dtype=bool)
    for const in consts:
        unknown = unknown | np.isnan(const)
    given = iter(consts)
    tensors: Any = node.target
    replaced = [
        torch.from_numpy(np.broadcast_to(next(given), shape).copy()) if isinstance(each, (Value, Weight)) else each
        for each in args
    ]
    out = np.full(shape, np.nan)
    if name in ("where", "masked_fill"):  # the condition is not followed: both sides must agree
        sides = consts[1:] if name == "where" else [consts[0], np.full((1,) * len(shape), _scalar(args[-1]))]
        if len(sides) == 2:
            one, other = np.broadcast_arrays(*sides)
            return np.broadcast_to(np.where(one == other, one, np.nan), shape)
        return out
    if name in CASTS or "dropout" in name:
        out = np.broadcast_to(consts[0], shape).copy()
        drops = "dropout" in name or isinstance(an.module(node), _DropoutNd)  # which is a copy in evaluation mode
        return np.where(out == 0, out, np.nan) if drops and an.training else out
    if not unknown.all():
        try:
            found = tensors(*replaced, **kwargs).double().numpy()
        except (RuntimeError, TypeError, AttributeError):
            return out
        out = np.where(unknown, np.nan, np.broadcast_to(found, shape))
    if name == "mul" and len(consts) == 2:
        out = np.where((consts[0] == 0) | (consts[1] == 0), 0.0, out)
    return out


def _scalar(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else np.nan


@rule("prelu.default", "_prelu_kernel.default")
def prelu(an: Analysis, node: fx.Node, x: Any, slopes: Any) -> Any:
    if not isinstance(slopes, Weight):
        return entrywise(an, node, x, slopes) if not isinstance(slopes, Value) or slopes.ids is None else _refuse()
    ids, const = an.only(x, [1], "its slopes are per channel")
    if slopes.data.numel() == 1:
        slopes.pin("one slope for all channels")
        slope = np.full(ids.shape, slopes.data.item())
    else:
        an.units.tie(slopes.axis(0), ids.ravel())
        slope = slopes.data.numpy().reshape(ids.shape)
    out = an.value(node, ids, np.where(const > 0, const, slope * const))
    an.backward(lambda: x.need(out.demand) if out.demand is not None else None)
    return out


def _refuse() -> Any:
    raise Unproved("it does not act entry by entry")


@rule("softmax.int", "_softmax.default", "log_softmax.int", "_log_softmax.default", "cumsum.default")
def softmax(an: Analysis, node: fx.Node, x: Any, dim: int, *args: Any, **kwargs: Any) -> Any:
    axis = dim % len(x.shape)
    if isinstance(x, Weight) or axis in x.channels:
        raise Unproved("a softmax over channels reads them all")
    if x.ids is None:
        return an.value(node)
    out = an.value(node, x.ids)
    an.backward(lambda: x.need(out.demand) if out.demand is not None else None)
    return out


REDUCTIONS = {"mean.dim": "same", "sum.dim_IntList": "zero", "amax.default": "same", "amin.default": "same",
              "mean.default": "same", "sum.default": "zero", "var.correction": "none"}  # fmt: skip


@rule(*REDUCTIONS)
def reduce(an: Analysis, node: fx.Node, x: Any, dims: Any = None, keep: Any = False, *args: Any, **kwargs: Any) -> Any:
    if isinstance(x, Weight):
        raise Unproved("a parameter is reduced")
    keep = kwargs.get("keepdim", keep if isinstance(keep, bool) else False)
    rank = len(x.shape)
    axes = tuple(range(rank)) if dims is None or dims == [] else tuple(axis % rank for axis in np.atleast_1d(dims))
    if set(axes) & set(x.channels):
        raise Unproved("a total over channels reads them all")
    if x.ids is None or x.const is None:
        return an.value(node)
    kind = REDUCTIONS[name_of(node)]
    const = {"same": x.const, "zero": np.where(x.const == 0, 0.0, np.nan), "none": np.full(x.const.shape, np.nan)}[kind]
    shape = x.ids.shape if keep else tuple(n for axis, n in enumerate(x.ids.shape) if axis not in axes)
    out = an.value(node, x.ids.reshape(shape), const.reshape(shape))
    full = x.ids.shape
    an.backward(lambda: x.need(out.demand.reshape(full)) if out.demand is not None else None)
    return out


POOLS = {"1d": 1, "2d": 2, "3d": 3}


@rule(*(f"{name}{size}.{overload}" for size in POOLS
        for name in ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "_adaptive_avg_pool",
                     "upsample_nearest", "upsample_bilinear", "upsample_linear", "upsample_trilinear", "lp_pool")
        for overload in ("default", "vec")),
      *(f"max_pool{size}_with_indices.default" for size in POOLS))  # fmt: skip
def pool(an: Analysis, node: fx.Node, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Every channel by itself; a constant stays one unless zeros around it are averaged in."""
    name = name_of(node)
    spatial = next(n for size, n in POOLS.items() if size in name)
    axis = len(x.shape) - spatial - 1
    several = isinstance(node.meta["val"], (tuple, list))
    if x.ids is None:
        outs = tuple(an.value(node, index=i) for i in range(len(node.meta["val"]))) if several else (an.value(node),)
        return outs if several else outs[0]
    ids, const = an.only(x, [axis], "a pooling over what it is laid out along")
    if "avg_pool" in name and "adaptive" not in name and len(args) > 2 and any(np.atleast_1d(args[2])):
        const = np.where(const == 0, 0.0, np.nan)
    if "lp_pool" in name:
        const = np.where(const == 0, 0.0, np.nan)
    out = an.value(node, ids, const)
    an.backward(lambda: x.need(out.demand) if out.demand is not None else None)
    if several:
        return out, *(an.value(node, ids, index=i) for i in range(1, len(node.meta["val"])))
    return out


@rule("glu.default")
def glu(an: Analysis, node: fx.Node, x: Any, dim: int = -1) -> Any:
    """a sigmoid(b) of the two halves of a tensor: they lose channels together."""
    axis = dim % len(x.shape)
    if axis not in x.channels:
        raise Unproved("the halves are no channels")
    first, second = np.split(x.ids, 2, axis=axis)
    an.units.tie(first, second)
    a, b = np.split(x.const, 2, axis=axis)
    out = an.value(node, first, np.where(a == 0, 0.0, a / (1.0 + np.exp(-b))))
    an.backward(lambda: x.need(np.concatenate([out.demand, out.demand], axis=axis)) if out.demand is not None else None)
    return out


@rule("_assert_tensor_metadata.default", "_assert_scalar.default", "sym_size.int", "sym_constrain_range.default")
def nothing(an: Analysis, node: fx.Node, *args: Any, **kwargs: Any) -> Any:
    return an.value(node)
