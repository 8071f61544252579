"""ProxSGD (Yang et al. 2020, with a unit averaging step) as a torch optimizer."""

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
from ramda_theory.optim.options import COMMON, number
from ramda_theory.optim.rmda import proximal_point
from ramda_theory.regularizers import Regularizer


class ProxSGD(StructuredOptimizer):
    r"""Proximal SGD with dampened momentum.

    .. math::
        m_t = \mu\, m_{t-1} + (1 - \mu) G_t, \qquad
        W_t = \mathrm{prox}_{\eta \psi}\bigl( W_{t-1} - \eta\, m_t \bigr), \quad \mu = \text{momentum},\ m_0 = 0.

    Parameters
    ----------
    params, lr, regularizer, maximize, on_nonfinite, foreach, capturable
        As in `RAMDA`.
    momentum : float or Tensor
        :math:`\mu`, in [0, 1).

    Notes
    -----
    State per parameter: ``momentum_buffer`` (m), ``step``: 4 bytes per float32 weight.
    """

    _checks: ClassVar = {**COMMON, "momentum": number("momentum", below=1.0)}
    _state_keys: ClassVar = ("momentum_buffer", "step")

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
        prox_sgd(*lists, options=group, keep=keep)


def prox_sgd(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    momentum_buffers: Sequence[Tensor],
    steps: Sequence[Tensor],
    *,
    options: dict[str, Any],
    keep: Tensor | None = None,
) -> None:
    """One step of ProxSGD on lists of tensors, in place; arguments as in `ramda`."""
    lists = (params, grads, weights, momentum_buffers, steps)
    if may_look(options, steps):
        for chunk in chunks(options["foreach"], params, steps, lists):
            _prox_sgd(*chunk, options=options)
    else:
        for tensors in zip(*lists, strict=True):
            _masked_prox_sgd(*tensors, options=options, keep=keep)


def _prox_sgd(
    params: Any, grads: Any, weights: Any, momentum_buffers: Any, steps: Any, *, options: dict[str, Any]
) -> None:
    """Tensors of one device, dtype and step, with numbers that may be looked at."""
    lr, mu = float(options["lr"]), float(options["momentum"])
    g, m = gradients(grads, params, weights), pieces(momentum_buffers)
    torch._foreach_add_(list(steps), 1)
    # m_t = mu m_{t-1} + (1 - mu) G_t
    torch._foreach_mul_(m, mu)
    torch._foreach_add_(m, g, alpha=mu - 1 if options["maximize"] else 1 - mu)
    if lr == 0:
        return
    w = read_weights(params, weights)
    # W_t = prox_{eta psi}( W_{t-1} - eta m_t )
    torch._foreach_add_(w, m, alpha=-lr)
    if options["regularizer"] is not None:
        for piece, parameter in zip(w, params, strict=True):
            piece.copy_(proximal_point(piece, lr, parameter, options))
    write_weights(params, weights)


def _masked_prox_sgd(
    parameter: Tensor,
    grad: Tensor,
    weight: Tensor,
    momentum_buffer: Tensor,
    step: Tensor,
    *,
    options: dict[str, Any],
    keep: Tensor | None,
) -> None:
    """The same recurrence for one tensor, with every number a tensor and every change masked."""
    lr, mu = scalar(options["lr"]), scalar(options["momentum"])
    (g,), (w,) = gradients([grad], [parameter], [weight], keep), read_weights([parameter], [weight])
    m = local(momentum_buffer)
    m_next = mu * m - (1 - mu) * g if options["maximize"] else mu * m + (1 - mu) * g
    point = proximal_point(w - lr * m_next, lr, parameter, options)
    assign(w, point, still(lr, keep))
    assign(m, m_next, keep)
    assign(step, step + 1, keep)
    write_weights([parameter], [weight])
