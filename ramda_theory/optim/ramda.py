"""RAMDA, Algorithm 1 of arXiv:2403.14398, as a torch optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from ramda_theory.kernels.sharding import local
from ramda_theory.optim.dual_averaging import DualAveraging, advance, masked_advance, masked_average
from ramda_theory.optim.fused import FusedStep
from ramda_theory.optim.lists import Work, assign, chunks, gradients, may_look, pieces, read_weights, write_weights
from ramda_theory.optim.options import COMMON, SOLVING, number, one_of
from ramda_theory.optim.solving import Inexactness, Pieces, minimizer, solved
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
        How the subproblem is solved.  Default: exactly where there is an exact method; accelerated proximal gradient
        for the nuclear norm; for GroupMCP exactly while the metric allows it, else Algorithm 2.  Otherwise a name
        ("proximal_gradient", ...) or a solver such as ``ProximalGradient(step="group")``.  Iterative solvers wait for
        their residual, and cannot be compiled.
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
        Update all tensors by one call of compiled loops that need next to no memory: float32 parameters on the CPU,
        without a regularizer or with L1, ElasticNet or GroupLasso (over ``dims``), solved exactly, and ``on_nonfinite``
        other than "skip".  None: where that can be; the plain path elsewhere, and while ``record_inexactness`` is set.
        True: refuse to take the plain path.  Their first call ever compiles them, for 10 to 20 seconds; the result is
        cached on disk.  They solve a group's equation to 5e-6, and weights below the smallest normal number (1e-38)
        become 0 in them.

    Notes
    -----
    State per parameter: ``anchor`` (W^0), ``grad_sum`` (V), ``grad_sq_sum`` (U), ``step`` (t), ``weight_sum``
    (alpha): 12 bytes per float32 weight; fused steps add ``norms``, the last ||What_g|| of every group.
    Set ``record_inexactness = True`` to have every step leave its residual, tolerance, iterations and status per
    parameter in ``inexactness``.
    """

    _checks: ClassVar = {
        **COMMON,
        **SOLVING,
        "momentum": number("momentum", below=1.0),
        "eps": number("eps", strict=True, tensor=False),
        "fused": one_of("fused", None, True, False),
    }
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

    def _reset_attributes(self) -> None:
        super()._reset_attributes()
        self.fused_step = FusedStep()

    def _check_finite(self, params: list[Tensor]) -> None:
        """Left to `_update_all`: the loops look through the gradients before they change anything."""

    def _update_all(self, work: list[Work], keep: Tensor | None) -> None:
        record = self.inexactness if self.record_inexactness else None
        check = self.param_groups[0]["on_nonfinite"] == "raise"
        left = self.fused_step(work, self.state, self._forget_new, check, recording=record is not None)
        if left is None:
            self._refuse_nonfinite()
        else:
            for group, lists in left:
                ramda(*lists, options=group, keep=keep, record=record)

    def _point(self, group: dict[str, Any], parameter: Tensor, state: dict[str, Tensor]) -> Tensor:
        metric = local(state["grad_sq_sum"]).pow(1 / 3).add_(group["eps"])
        t, alpha = self._numbers(group, state)
        data = Pieces(local(state["anchor"]), local(state["grad_sum"]), metric, alpha)
        return minimizer(data, parameter, local(state.get("w", parameter)), t, group)


def ramda(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    weights: Sequence[Tensor],
    anchors: Sequence[Tensor],
    grad_sums: Sequence[Tensor],
    grad_sq_sums: Sequence[Tensor],
    steps: Sequence[Tensor],
    weight_sums: Sequence[Tensor],
    *,
    options: dict[str, Any],
    keep: Tensor | None = None,
    record: dict[Tensor, Inexactness] | None = None,
) -> None:
    """One step of RAMDA on lists of tensors, in place.

    Parameters
    ----------
    params, grads : lists of Tensor
        The model's own.
    weights : list of Tensor
        W: the parameters themselves, or the float32 copies of half-precision ones.
    anchors, grad_sums, grad_sq_sums, steps, weight_sums : lists of Tensor
        The state: W^0, V, U, t, alpha.
    options : dict
        The parameter group.
    keep : Tensor, optional
        Flag; where true nothing changes.
    record : dict, optional
        Where to leave how well each subproblem was solved.
    """
    lists = (params, grads, weights, anchors, grad_sums, grad_sq_sums, steps, weight_sums)
    if may_look(options, steps):
        for chunk in chunks(options["foreach"], params, steps, lists):
            _ramda(*chunk, options=options, record=record)
    else:
        for tensors in zip(*lists, strict=True):
            _masked_ramda(*tensors, options=options, keep=keep, record=record)


def _ramda(
    params: Any,
    grads: Any,
    weights: Any,
    anchors: Any,
    grad_sums: Any,
    grad_sq_sums: Any,
    steps: Any,
    weight_sums: Any,
    *,
    options: dict[str, Any],
    record: dict[Tensor, Inexactness] | None,
) -> None:
    """Tensors of one device, dtype and step, with numbers that may be looked at."""
    # s_t = eta sqrt(t),  alpha_t = alpha_{t-1} + s_t
    t, s, alphas = advance(steps, weight_sums, options["lr"])
    if s == 0:
        return
    g, w = gradients(grads, params, weights), read_weights(params, weights)
    v, u, anchor = pieces(grad_sums), pieces(grad_sq_sums), pieces(anchors)
    # V_t = V_{t-1} + s_t G_t
    torch._foreach_add_(v, g, alpha=-s if options["maximize"] else s)
    # U_t = U_{t-1} + s_t (G_t o G_t)
    torch._foreach_addcmul_(u, g, g, value=s)
    # P_t = Diag(cbrt(U_t) + eps)
    metrics = torch._foreach_pow(u, 1 / 3)
    torch._foreach_add_(metrics, options["eps"])
    # What_t = argmin alpha_t psi(W) + <V_t, W> + 1/2 <W - W^0, P_t (W - W^0)>
    data = [Pieces(*each) for each in zip(anchor, v, metrics, alphas, strict=True)]
    points = [solved(*each, t, options, record) for each in zip(data, params, w, strict=True)]
    # W_t = (1 - c) W_{t-1} + c What_t
    torch._foreach_lerp_(w, points, 1.0 - float(options["momentum"]))
    write_weights(params, weights)


def _masked_ramda(
    parameter: Tensor,
    grad: Tensor,
    weight: Tensor,
    anchor: Tensor,
    grad_sum: Tensor,
    grad_sq_sum: Tensor,
    step: Tensor,
    weight_sum: Tensor,
    *,
    options: dict[str, Any],
    keep: Tensor | None,
    record: dict[Tensor, Inexactness] | None,
) -> None:
    """The same recurrence for one tensor, with every number a tensor and every change masked."""
    t, s, alpha = masked_advance(step, weight_sum, options["lr"], keep)
    if s is None:
        return
    (g,), (w,) = gradients([grad], [parameter], [weight], keep), read_weights([parameter], [weight])
    v, u, s = local(grad_sum), local(grad_sq_sum), s.to(w.dtype)
    v_next = v - s * g if options["maximize"] else v + s * g
    u_next = u + s * g * g
    data = Pieces(local(anchor), v_next, u_next.pow(1 / 3) + options["eps"], alpha)
    point = solved(data, parameter, w, t, options, record)
    masked_average(w, point, options, keep)
    for target, value in ((v, v_next), (u, u_next), (weight_sum, alpha), (step, t)):
        assign(target, value, keep)
    write_weights([parameter], [weight])
