"""ProxAdamW: ProxGen (Yun et al. 2021) with AdamW's moments, as a torch optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from ramda_theory.kernels.sharding import local
from ramda_theory.optim.base import StructuredOptimizer
from ramda_theory.optim.lists import (
    assign,
    chunks,
    gradients,
    may_look,
    pieces,
    read_weights,
    scalar,
    still,
    write_weights,
)
from ramda_theory.optim.options import COMMON, SOLVING, betas, number
from ramda_theory.optim.solving import Inexactness, Pieces, solved
from ramda_theory.regularizers import Regularizer


class ProxAdamW(StructuredOptimizer):
    r"""AdamW whose step minimises the regularizer with it, in AdamW's own metric; without a regularizer, AdamW.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1) G_t, \quad v_t = \beta_2 v_{t-1} + (1 - \beta_2) G_t \circ G_t, \\
        P_t &= \mathrm{Diag}\bigl( \sqrt{v_t / (1 - \beta_2^t)} + \epsilon \bigr), \quad
        W' = (1 - \eta \lambda_{wd}) W_{t-1}, \\
        W_t &= \arg\min_W \; \eta \langle m_t / (1 - \beta_1^t), W \rangle
        + \tfrac12 \langle W - W', P_t (W - W') \rangle + \eta \psi(W).

    Parameters
    ----------
    params, lr, regularizer, maximize, on_nonfinite, solver, tolerance, max_iter, foreach, capturable
        As in `RAMDA`.
    betas : pair of float
        Averaging coefficients, each in [0, 1).
    eps : float
        :math:`\epsilon > 0`.
    weight_decay : float
        :math:`\lambda_{wd} \ge 0`, decoupled.

    Notes
    -----
    State per parameter: ``exp_avg`` (m), ``exp_avg_sq`` (v), ``step`` (t), named as in ``torch.optim.AdamW``, whose
    state_dict this class can load: 8 bytes per float32 weight.
    """

    _checks: ClassVar = {
        **COMMON,
        **SOLVING,
        "betas": betas,
        "eps": number("eps", strict=True, tensor=False),
        "weight_decay": number("weight_decay", tensor=False),
    }
    _state_keys: ClassVar = ("exp_avg", "exp_avg_sq", "step")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        regularizer: Regularizer | None = None,
        maximize: bool = False,
        on_nonfinite: str = "raise",
        *,
        solver: Any = None,
        tolerance: Any = None,
        max_iter: int = 100,
        foreach: bool | None = None,
        capturable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "regularizer": regularizer,
            "maximize": maximize,
            "on_nonfinite": on_nonfinite,
            "solver": solver,
            "tolerance": tolerance,
            "max_iter": max_iter,
            "foreach": foreach,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _update(self, group: dict[str, Any], *lists: list[Tensor], keep: Tensor | None) -> None:
        prox_adamw(*lists, options=group, keep=keep, record=self.inexactness if self.record_inexactness else None)


def prox_adamw(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    steps: Sequence[Tensor],
    *,
    options: dict[str, Any],
    keep: Tensor | None = None,
    record: dict[Tensor, Inexactness] | None = None,
) -> None:
    """One step of ProxAdamW on lists of tensors, in place; arguments as in `ramda`."""
    lists = (params, grads, weights, exp_avgs, exp_avg_sqs, steps)
    if may_look(options, steps):
        for chunk in chunks(options["foreach"], params, steps, lists):
            _prox_adamw(*chunk, options=options, record=record)
    else:
        for tensors in zip(*lists, strict=True):
            _masked_prox_adamw(*tensors, options=options, keep=keep, record=record)


def _prox_adamw(
    params: Any,
    grads: Any,
    weights: Any,
    exp_avgs: Any,
    exp_avg_sqs: Any,
    steps: Any,
    *,
    options: dict[str, Any],
    record: dict[Tensor, Inexactness] | None,
) -> None:
    """Tensors of one device, dtype and step, with numbers that may be looked at."""
    lr, (beta1, beta2) = float(options["lr"]), options["betas"]
    g, m, v = gradients(grads, params, weights), pieces(exp_avgs), pieces(exp_avg_sqs)
    torch._foreach_add_(list(steps), 1)
    t = steps[0].item()
    # m_t = beta_1 m_{t-1} + (1 - beta_1) G_t,  v_t = beta_2 v_{t-1} + (1 - beta_2) G_t o G_t
    torch._foreach_mul_(m, beta1)
    torch._foreach_add_(m, g, alpha=beta1 - 1 if options["maximize"] else 1 - beta1)
    torch._foreach_mul_(v, beta2)
    torch._foreach_addcmul_(v, g, g, value=1 - beta2)
    if lr == 0:
        return
    w = read_weights(params, weights)
    # W' = (1 - eta lambda_wd) W_{t-1}
    if options["weight_decay"]:
        torch._foreach_mul_(w, 1 - lr * options["weight_decay"])
    # P_t = Diag( sqrt(v_t / (1 - beta_2^t)) + eps )
    metrics = torch._foreach_sqrt(v)
    torch._foreach_div_(metrics, (1 - beta2**t) ** 0.5)
    torch._foreach_add_(metrics, options["eps"])
    # W_t = argmin eta <m_t / (1 - beta_1^t), W> + 1/2 <W - W', P_t (W - W')> + eta psi(W)
    rate = lr / (1 - beta1**t)
    if options["regularizer"] is None:
        torch._foreach_addcdiv_(w, m, metrics, -rate)
    else:
        for piece, parameter, mean, metric in zip(w, params, m, metrics, strict=True):
            data = Pieces(piece, rate * mean, metric, lr)
            piece.copy_(solved(data, parameter, piece, t, options, record))
    write_weights(params, weights)


def _masked_prox_adamw(
    parameter: Tensor,
    grad: Tensor,
    weight: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: Tensor,
    *,
    options: dict[str, Any],
    keep: Tensor | None,
    record: dict[Tensor, Inexactness] | None,
) -> None:
    """The same recurrence for one tensor, with every number a tensor and every change masked."""
    lr, (beta1, beta2) = scalar(options["lr"]), options["betas"]
    (g,), (w,) = gradients([grad], [parameter], [weight], keep), read_weights([parameter], [weight])
    m, v, t = local(exp_avg), local(exp_avg_sq), step + 1
    m_next = beta1 * m - (1 - beta1) * g if options["maximize"] else beta1 * m + (1 - beta1) * g
    v_next = beta2 * v + (1 - beta2) * g * g
    metric = v_next.sqrt() / (1 - beta2 ** t.double()).sqrt().to(w.dtype) + options["eps"]
    rate = (lr / (1 - beta1 ** t.double())).to(w.dtype)
    data = Pieces(w * (1 - lr * options["weight_decay"]), rate * m_next, metric, lr)
    assign(w, solved(data, parameter, w, t, options, record), still(lr, keep))
    for target, value in ((m, m_next), (v, v_next), (step, t)):
        assign(target, value, keep)
    write_weights([parameter], [weight])
