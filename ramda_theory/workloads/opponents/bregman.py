"""LinBreg and AdaBreg (Bungert et al. 2022, arXiv:2105.04319): linearized Bregman iterations, from sparse to dense."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ramda_theory.workloads.opponents.base import Opponent


class Bregman(Opponent):
    r"""Steps on a dual variable, :math:`v \mathrel{-}= \eta\, d`, and :math:`w = \mathrm{prox}_{\delta\psi}(\delta v)`.

    Training begins sparse: of the groups of every regularized parameter a share is kept, scaled by its inverse root so
    that the variance of what a layer puts out stays, and :math:`v_0 = w_0/\delta + p_0` with :math:`p_0` the least
    subgradient of psi at :math:`w_0`.  Groups enter when the accumulated gradient carries v over its threshold.

    Parameters
    ----------
    params : iterable
        Parameters or groups.
    defaults : dict
        Of the options; "delta" > 0 and "start", the share of the groups that is kept, in (0, 1].
    seed : int
        Of the choice of groups.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any], seed: int) -> None:
        if not 0 < defaults["start"] <= 1:
            raise ValueError(f"start must be in (0, 1], got {defaults['start']!r}")
        super().__init__(params, defaults)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for w, psi in self.structured():
                if (groups := psi.as_groups) is not None and defaults["start"] < 1:
                    norms = groups.group_norms(w)
                    kept = torch.rand(norms.shape, generator=generator) < defaults["start"]
                    kept.view(-1)[int(torch.randint(norms.numel(), (), generator=generator))] = True
                    scale = kept.to(w) / kept.float().mean().sqrt().to(w)
                    w.mul_(groups.spread(scale, w))

    def update(self, w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        """A step of v, then w."""
        direction = self.direction(g, group, state)
        psi, delta = group["regularizer"], group["delta"]
        if psi is None:
            w.sub_(group["lr"] * direction)
            return
        if "v" not in state:
            subgradient = psi.subdifferential_residual(w, torch.zeros_like(w), 1.0).to(w.dtype)
            state["v"] = w / delta + subgradient
        state["v"].sub_(group["lr"] * direction)
        w.copy_(psi.prox(delta * state["v"], delta))

    def direction(self, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
        """What the dual variable moves against."""
        raise NotImplementedError


class LinBreg(Bregman):
    """The direction is momentum, m = momentum m + (1 - momentum) g.

    Parameters
    ----------
    params : iterable
    lr, momentum, delta, start, seed
        See `Bregman`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.5,
        momentum: float = 0.9,
        delta: float = 1.0,
        start: float = 0.2,
        seed: int = 0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "delta": delta, "start": start}, seed)

    def direction(self, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
        """The momentum."""
        if "m" not in state:
            state["m"] = torch.zeros_like(g)
        m: Tensor = state["m"].lerp_(g, 1.0 - group["momentum"])
        return m


class AdaBreg(Bregman):
    """The direction is Adam's.

    Parameters
    ----------
    params : iterable
    lr, betas, eps
        As Adam's.
    delta, start, seed
        See `Bregman`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        delta: float = 1.0,
        start: float = 0.2,
        seed: int = 0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "delta": delta, "start": start}, seed)

    def direction(self, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> Tensor:
        """m / (sqrt(u) + eps), with bias correction."""
        if "m" not in state:
            state["m"], state["u"], state["t"] = torch.zeros_like(g), torch.zeros_like(g), 0
        first, second = group["betas"]
        state["t"] += 1
        m, u = state["m"].lerp_(g, 1.0 - first), state["u"].lerp_(g * g, 1.0 - second)
        corrected = m / (1.0 - first ** state["t"])
        direction: Tensor = corrected / ((u / (1.0 - second ** state["t"])).sqrt() + group["eps"])
        return direction
