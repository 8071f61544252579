"""RMDA (Huang & Lee 2022) as a torch optimizer."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ramda_theory.kernels import recurrences
from ramda_theory.optim.dual_averaging import DualAveraging
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
    _recurrence: ClassVar = recurrences.RMDA
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
