"""Rules of attention: products of two computed tensors, and heads that can only leave as a whole."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx

from ramda_theory.model.compaction.analysis import Analysis, rule
from ramda_theory.model.compaction.rules_linear import contraction
from ramda_theory.model.compaction.rules_shape import as_value
from ramda_theory.model.compaction.units import Value, Weight


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
