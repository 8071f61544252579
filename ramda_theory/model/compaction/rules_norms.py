"""Rules of norms, whose counts change with the channels they see."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx, nn

from ramda_theory.model.compaction.analysis import Analysis, Site, Unproved, rule
from ramda_theory.model.compaction.layers import has_hooks
from ramda_theory.model.compaction.rules_shape import as_value
from ramda_theory.model.compaction.trace import owner
from ramda_theory.model.compaction.units import Weight


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
