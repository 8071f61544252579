"""ProxSGD (Yang et al. 2020, with a unit averaging step) as a torch optimizer."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ramda_theory.kernels import recurrences
from ramda_theory.optim.base import StructuredOptimizer
from ramda_theory.optim.options import COMMON, number
from ramda_theory.regularizers import Regularizer


class ProxSGD(StructuredOptimizer):
    r"""Proximal SGD with dampened momentum.

    .. math::
        m_t = \mu\, m_{t-1} + (1 - \mu) G_t, \qquad
        W_t = \mathrm{prox}_{\eta \psi}\bigl( W_{t-1} - \eta\, m_t \bigr), \quad \mu = \text{momentum},\ m_0 = 0.

    Parameters
    ----------
    params, lr
        As in `RAMDA`.
    momentum : float or Tensor
        :math:`\mu`, in [0, 1).
    regularizer, maximize, on_nonfinite, foreach, capturable
        As in `RAMDA`.

    Notes
    -----
    State per parameter: ``momentum_buffer`` (m), ``step``: 4 bytes per float32 weight.
    """

    _checks: ClassVar = {**COMMON, "momentum": number("momentum", below=1.0)}
    _recurrence: ClassVar = recurrences.PROX_SGD
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
