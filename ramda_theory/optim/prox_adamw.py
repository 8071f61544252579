"""ProxAdamW: ProxGen (Yun et al. 2021) with AdamW's moments, as a torch optimizer."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ramda_theory.kernels import recurrences
from ramda_theory.optim.base import StructuredOptimizer
from ramda_theory.optim.options import COMMON, SOLVING, betas, number
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
    params, lr
        As in `RAMDA`.
    betas : pair of float
        Averaging coefficients, each in [0, 1).
    eps : float
        :math:`\epsilon > 0`.
    weight_decay : float
        :math:`\lambda_{wd} \ge 0`, decoupled.
    regularizer, maximize, on_nonfinite, solver, tolerance, max_iter, foreach, capturable
        As in `RAMDA`.

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
    _recurrence: ClassVar = recurrences.PROX_ADAMW
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
