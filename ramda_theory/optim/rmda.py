"""RMDA (Huang & Lee 2022) as a torch optimizer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from ramda_theory.kernels.sharding import apply, local
from ramda_theory.optim.dual_averaging import DualAveraging, advance, masked_advance, masked_average
from ramda_theory.optim.lists import assign, chunks, gradients, may_look, pieces, read_weights, write_weights
from ramda_theory.optim.options import COMMON, number
from ramda_theory.regularizers import Regularizer


class RMDA(DualAveraging):
    r"""Regularized momentum dual averaging; without a regularizer, MDA (Jelassi & Defazio 2020).

    With :math:`s_t = \eta \sqrt{t}`, :math:`\alpha_t = \alpha_{t-1} + s_t` and gradients :math:`G_t` at
    :math:`W_{t-1}`,

    .. math::
        V_t &= V_{t-1} + s_t G_t, \qquad
        \hat W_t = \mathrm{prox}_{(\alpha_t/\sqrt t) \psi}\bigl( W^0 - V_t / \sqrt t \bigr), \\
        W_t &= (1 - c) W_{t-1} + c \hat W_t, \quad c = 1 - \text{momentum}.

    Parameters
    ----------
    params, lr, momentum, regularizer, maximize, on_nonfinite, foreach, capturable
        As in `RAMDA`.

    Notes
    -----
    State per parameter: ``anchor`` (W^0), ``grad_sum`` (V), ``step`` (t), ``weight_sum`` (alpha): 8 bytes per float32
    weight.
    """

    _checks: ClassVar = {**COMMON, "momentum": number("momentum", below=1.0)}
    _state_keys: ClassVar = ("anchor", "grad_sum", "step", "weight_sum")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-1,
        momentum: float | Tensor = 0.9,
        regularizer: Regularizer | None = None,
        maximize: bool = False,
        on_nonfinite: str = "raise",
        *,
        foreach: bool | None = None,
        capturable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "regularizer": regularizer,
            "maximize": maximize,
            "on_nonfinite": on_nonfinite,
            "foreach": foreach,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _update(self, group: dict[str, Any], *lists: list[Tensor], keep: Tensor | None) -> None:
        rmda(*lists, options=group, keep=keep)

    def _point(self, group: dict[str, Any], parameter: Tensor, state: dict[str, Tensor]) -> Tensor:
        t, alpha = self._numbers(group, state)
        return proximal_point(*forward(local(state["anchor"]), local(state["grad_sum"]), t, alpha), parameter, group)


def rmda(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    anchors: Sequence[Tensor],
    grad_sums: Sequence[Tensor],
    steps: Sequence[Tensor],
    weight_sums: Sequence[Tensor],
    *,
    options: dict[str, Any],
    keep: Tensor | None = None,
) -> None:
    """One step of RMDA on lists of tensors, in place; arguments as in `ramda`."""
    lists = (params, grads, weights, anchors, grad_sums, steps, weight_sums)
    if may_look(options, steps):
        for chunk in chunks(options["foreach"], params, steps, lists):
            _rmda(*chunk, options=options)
    else:
        for tensors in zip(*lists, strict=True):
            _masked_rmda(*tensors, options=options, keep=keep)


def _rmda(
    params: Any,
    grads: Any,
    weights: Any,
    anchors: Any,
    grad_sums: Any,
    steps: Any,
    weight_sums: Any,
    *,
    options: dict[str, Any],
) -> None:
    """Tensors of one device, dtype and step, with numbers that may be looked at."""
    # s_t = eta sqrt(t),  alpha_t = alpha_{t-1} + s_t
    t, s, alphas = advance(steps, weight_sums, options["lr"])
    if s == 0:
        return
    g, w, v = gradients(grads, params, weights), read_weights(params, weights), pieces(grad_sums)
    # V_t = V_{t-1} + s_t G_t
    torch._foreach_add_(v, g, alpha=-s if options["maximize"] else s)
    # What_t = prox_{(alpha_t/beta_t) psi}( W^0 - V_t/beta_t ),  beta_t = sqrt(t)
    points = [
        proximal_point(*forward(anchor, piece, t, alpha), parameter, options)
        for anchor, piece, alpha, parameter in zip(pieces(anchors), v, alphas, params, strict=True)
    ]
    # W_t = (1 - c) W_{t-1} + c What_t
    torch._foreach_lerp_(w, points, 1.0 - float(options["momentum"]))
    write_weights(params, weights)


def _masked_rmda(
    parameter: Tensor,
    grad: Tensor,
    weight: Tensor,
    anchor: Tensor,
    grad_sum: Tensor,
    step: Tensor,
    weight_sum: Tensor,
    *,
    options: dict[str, Any],
    keep: Tensor | None,
) -> None:
    """The same recurrence for one tensor, with every number a tensor and every change masked."""
    t, s, alpha = masked_advance(step, weight_sum, options["lr"], keep)
    if s is None:
        return
    (g,), (w,) = gradients([grad], [parameter], [weight], keep), read_weights([parameter], [weight])
    v, s = local(grad_sum), s.to(w.dtype)
    v_next = v - s * g if options["maximize"] else v + s * g
    point = proximal_point(*forward(local(anchor), v_next, t, alpha), parameter, options)
    masked_average(w, point, options, keep)
    for target, value in ((v, v_next), (weight_sum, alpha), (step, t)):
        assign(target, value, keep)
    write_weights([parameter], [weight])


def forward(
    anchor: Tensor, grad_sum: Tensor, t: Tensor | float, weight_sum: Tensor | float
) -> tuple[Tensor, Tensor | float]:
    """W^0 - V / beta and alpha / beta, with beta = sqrt(t)."""
    if not isinstance(t, Tensor):
        beta = math.sqrt(t)
        return torch.sub(anchor, grad_sum, alpha=1.0 / beta), weight_sum / beta
    root = t.double().sqrt()
    return anchor - grad_sum / root.to(anchor.dtype), weight_sum / root


def proximal_point(z: Tensor, scale: Tensor | float, parameter: Tensor, options: dict[str, Any]) -> Tensor:
    """prox_{scale psi}(z), this process's piece; ``z`` itself without a regularizer."""
    psi = options["regularizer"]
    return z if psi is None else apply(lambda whole: psi.prox(whole, scale), psi, parameter, z)
