"""D-Gating (Kolb et al. 2025, arXiv:2509.23898): groups as products with scalar gates, trained by plain SGD."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ramda_theory.workloads.opponents.base import Opponent, needs_groups


class DGating(Opponent):
    r"""SGD with momentum on :math:`w_g = \omega_g \prod_{d<D} \gamma_{g,d}` with a smooth penalty on the factors.

    The penalty :math:`\frac{1}{D}\sum_g \lambda_g (\|\omega_g\|^2 + \sum_d \gamma_{g,d}^2)` has, over all factors of a
    given w, the least value :math:`\sum_g \lambda_g \|w_g\|^{2/D}`: for D = 2 the group LASSO.

    Parameters
    ----------
    params : iterable
        Parameters or groups; those with a regularizer are gated, with its groups and :math:`\lambda_g`.
    lr : float
        Learning rate.
    momentum : float
        In [0, 1); m = momentum m + g.
    depth : int
        D >= 2.
    cutoff : float
        A group whose norm is at most this, relative to the largest of its parameter, is shown as zero; its factors
        go on.  Nothing is exactly zero otherwise.

    Notes
    -----
    The factors are state of the optimizer, and w is what the model sees: the chain rule gives their gradients from w's,
    so that the trajectory is that of a gated model.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.05,
        momentum: float = 0.9,
        depth: int = 2,
        cutoff: float = 1e-6,
    ) -> None:
        if depth < 2:
            raise ValueError(f"depth must be at least 2, got {depth}")
        super().__init__(params, {"lr": lr, "momentum": momentum, "depth": depth, "cutoff": cutoff})
        for _, regularizer in self.structured():
            needs_groups(regularizer, "D-Gating")

    def update(self, w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        """One step of SGD on the factors."""
        lr, momentum = group["lr"], group["momentum"]
        if group["regularizer"] is None:
            move(w, g, lr, momentum, state, "w")
            return
        psi, depth = needs_groups(group["regularizer"], "D-Gating"), group["depth"]
        groups = psi.groups(w)
        if "omega" not in state:
            state["omega"] = w.detach().clone()
            gate = torch.ones_like(groups.total(torch, w)).to(w.dtype)
            state["gates"] = torch.stack([gate] * (depth - 1))
        omega, gates = state["omega"], state["gates"]
        pull = 2.0 / depth * psi.group_weights(w)
        towards = groups.total(torch, g * omega).to(w.dtype)
        others = [
            torch.stack([*gates[:d], *gates[d + 1 :], torch.ones_like(gates[0])]).prod(dim=0) for d in range(depth - 1)
        ]
        gate_gradient = torch.stack([towards * other for other in others]) + pull * gates
        omega_gradient = g * psi.spread(gates.prod(dim=0), w) + entrywise(psi, pull, w) * omega
        move(omega, omega_gradient, lr, momentum, state, "omega_momentum")
        move(gates, gate_gradient, lr, momentum, state, "gates_momentum")
        w.copy_(omega * psi.spread(gates.prod(dim=0), w))
        norms = psi.group_norms(w)
        alive = (norms > group["cutoff"] * norms.max()).to(w.dtype)
        w.mul_(psi.spread(alive, w))


def entrywise(psi: Any, per_group: Any, like: Tensor) -> Any:
    """A scalar as it is, a number per group spread over the entries."""
    return psi.spread(per_group, like) if isinstance(per_group, Tensor) else per_group


def move(x: Tensor, gradient: Tensor, lr: float, momentum: float, state: dict[str, Any], key: str) -> None:
    """x -= lr m with m = momentum m + gradient."""
    if momentum:
        if key not in state:
            state[key] = torch.zeros_like(x)
        gradient = state[key].mul_(momentum).add_(gradient)
    x.sub_(lr * gradient)
