"""RAMDA, Algorithm 1 of arXiv:2403.14398, as a torch optimizer."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from torch.optim.optimizer import ParamsT

from ramda_theory.kernels import recurrences
from ramda_theory.optim.dual_averaging import DualAveraging
from ramda_theory.optim.options import COMMON, SOLVING, number, one_of
from ramda_theory.regularizers import Regularizer


class RAMDA(DualAveraging):
    r"""Regularized adaptive momentum dual averaging; without a regularizer, MADGRAD.

    With :math:`s_t = \eta \sqrt{t}`, :math:`\alpha_t = \alpha_{t-1} + s_t` and gradients :math:`G_t` at
    :math:`W_{t-1}`,

    .. math::
        V_t &= V_{t-1} + s_t G_t, \quad U_t = U_{t-1} + s_t\, G_t \circ G_t, \quad
        P_t = \mathrm{Diag}(\sqrt[3]{U_t} + \epsilon), \\
        \hat W_t &= \arg\min_W \; \alpha_t \psi(W) + \langle V_t, W \rangle
        + \tfrac12 \langle W - W^0, P_t (W - W^0) \rangle, \\
        W_t &= (1 - c) W_{t-1} + c \hat W_t, \quad c = 1 - \text{momentum}.

    Parameters
    ----------
    params : iterable
        Parameters, named parameters, or dicts that define groups; a group may carry its own value of any option below
        but ``on_nonfinite``.
    lr : float or Tensor
        :math:`\eta \ge 0`.  A step with lr 0 leaves the weights and the sums as they are.
    momentum : float or Tensor
        1 - c, in [0, 1).  With momentum > 0 exact zeros are in :math:`\hat W` (`structured_point`,
        `adopt_structured_point`), not in W.
    eps : float
        :math:`\epsilon > 0`.
    regularizer : Regularizer, optional
        :math:`\psi`; None for none.
    maximize : bool
        Maximize the objective instead.
    on_nonfinite : {"raise", "skip", "ignore"}
        What to do about a gradient that holds NaN, Inf, or entries too large to square.  "raise": an error, before
        anything has changed; waits for the gradients once per step.  "skip": leave the whole step out and count it
        (`skipped_steps`), without waiting.  "ignore": let it through; its group, and everything it touches, becomes
        NaN, never zero.  With sharded parameters all processes decide together.
    solver : optional
        How the subproblem is solved.  Default: exactly where there is an exact method; for the nuclear norm by `ADMM`
        or, where it is small beside the metric, `ALS`, which begin where the step before ended.  Otherwise a name
        ("proximal_gradient", ...) or a solver such as ``ProximalGradient(step="group")``.  Iterative solvers wait
        for their residual, and cannot be compiled.
    tolerance : float or tolerance sequence, optional
        :math:`\epsilon_t` of (7) for an iterative solver, t counted from the start of the stage; default: what the
        dtype warrants.
    max_iter : int
        Limit on the iterations of such a solver.
    foreach : bool, optional
        Update lists of tensors by one call, which takes more memory; default: on accelerators.
    capturable : bool
        Never look at a number of the step, so that it can be captured in a graph.
    fused : bool, optional
        Whether a compiled engine steps: float32 and half-precision parameters on the CPU, or on a GPU where triton is
        installed, exact solvers of every regularizer whose `Regularizer.kernel` it knows.  None: where it can, the
        eager engine elsewhere and while ``record_inexactness`` is set (`explain_step` says which and why).  True:
        refuse to take the eager one.  False: always take it.  The first step of a kind ever compiles for some seconds;
        the result is cached on disk.
        Compiled steps solve a group's equation to 1e-6, and weights below the smallest normal number (1e-38) become 0
        in them.

    Notes
    -----
    State per parameter: ``anchor`` (W^0), ``grad_sum`` (V), ``grad_sq_sum`` (U), ``step`` (t), ``weight_sum``
    (alpha): 12 bytes per float32 weight; fused steps add ``norms``, the last ||What_g|| of every group; ADMM and ALS
    add ``solution`` and ``dual``, 8 bytes per weight, and ``basis``, the last singular vectors of a nuclear norm (of
    the shorter side; at high rank all of them).
    Set ``record_inexactness = True`` to have every step leave its residual, tolerance, iterations and status per
    parameter in ``inexactness``; where the subproblem is solved exactly no step waits for a device to do so.
    """

    _checks: ClassVar = {
        **COMMON,
        **SOLVING,
        "momentum": number("momentum", below=1.0),
        "eps": number("eps", strict=True, tensor=False),
        "fused": one_of("fused", None, True, False),
    }
    _recurrence: ClassVar = recurrences.RAMDA
    _state_keys: ClassVar = ("anchor", "grad_sum", "grad_sq_sum", "step", "weight_sum")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        momentum: float | Tensor = 0.9,
        eps: float = 1e-6,
        regularizer: Regularizer | None = None,
        maximize: bool = False,
        on_nonfinite: str = "raise",
        *,
        solver: Any = None,
        tolerance: Any = None,
        max_iter: int = 100,
        foreach: bool | None = None,
        capturable: bool = False,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "eps": eps,
            "regularizer": regularizer,
            "maximize": maximize,
            "on_nonfinite": on_nonfinite,
            "solver": solver,
            "tolerance": tolerance,
            "max_iter": max_iter,
            "foreach": foreach,
            "capturable": capturable,
            "fused": fused,
        }
        super().__init__(params, defaults)
