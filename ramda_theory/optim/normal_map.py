"""Normal-map proximal SGD (arXiv:2305.05828) as a torch optimizer."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from ramda_theory.kernels import recurrences
from ramda_theory.kernels.sharding import apply, local
from ramda_theory.optim.base import StructuredOptimizer
from ramda_theory.optim.options import COMMON, check_parameter, number
from ramda_theory.regularizers import Regularizer


class NormalMapSGD(StructuredOptimizer):
    r"""Proximal SGD on the normal map (Milzarek & Qiu, arXiv:2305.05828).

    .. math::
        z_t = z_{t-1} - \eta \bigl( G_t + (z_{t-1} - W_{t-1}) / \tau \bigr), \qquad
        W_t = \mathrm{prox}_{\tau \psi}(z_t), \quad \tau = \text{prox\_step}.

    Parameters
    ----------
    params : iterable
        As in `RAMDA`.
    lr : float or Tensor
        :math:`\eta \ge 0`, below ``prox_step``.
    prox_step : float
        :math:`\tau > 0`.  z remembers gradients over about ``prox_step / lr`` steps: an lr that a schedule lowers
        makes that memory longer, and the structure of W quieter.
    regularizer, maximize, on_nonfinite, foreach, capturable
        As in `RAMDA`.

    Notes
    -----
    State per parameter: ``normal_map`` (z), ``step``: 4 bytes per float32 weight.  z starts at W + tau s, s the
    subgradient of psi at W of least norm, so that its proximal point is W.  Weights that are changed from outside move
    W only; z forgets them as it forgets gradients.
    """

    _checks: ClassVar = {**COMMON, "prox_step": number("prox_step", strict=True, tensor=False)}
    _recurrence: ClassVar = recurrences.NORMAL_MAP
    _state_keys: ClassVar = ("normal_map", "step")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-1,
        prox_step: float = 1.0,
        regularizer: Regularizer | None = None,
        maximize: bool = False,
        on_nonfinite: str = "raise",
        *,
        foreach: bool | None = None,
        capturable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "prox_step": prox_step,
            "regularizer": regularizer,
            "maximize": maximize,
            "on_nonfinite": on_nonfinite,
            "foreach": foreach,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _initial_state(self, group: dict[str, Any], parameter: Tensor) -> dict[str, Tensor]:
        check_parameter(parameter, group["regularizer"])  # who was put into the group has not been looked at
        state = super()._initial_state(group, parameter)
        psi, tau, w = group["regularizer"], group["prox_step"], local(state.get("w", parameter.detach()))

        def centre(w: Tensor) -> Tensor:
            centre: Tensor = (w + tau * psi.subdifferential_residual(w, torch.zeros_like(w))).to(w.dtype)
            return centre

        start = w if psi is None or not parameter.numel() else apply(centre, psi, parameter, w)
        with torch.no_grad():
            local(state["normal_map"]).copy_(start)
        return state
