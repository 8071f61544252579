"""The optimizers that ``ramda-theory train --workload`` knows, and how each is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ramda_theory.workloads.workload import Settings

if TYPE_CHECKING:
    from torch.optim import Optimizer


@dataclass(frozen=True)
class Entrant:
    """An optimizer.

    Parameters
    ----------
    build : callable
        ``build(params, settings, steps)``: parameter groups, `Settings`, and steps until the first milestone.
    lr : float
        Its learning rate where a workload says nothing.
    structured : bool
        Whether it uses the regularizer.
    weight_is : str
        What ``weight`` means to it.
    settings_of : str
        Whose settings it takes where a workload has none for it.
    """

    build: Callable[[Any, Settings, int], Optimizer]
    lr: float
    structured: bool = True
    weight_is: str = "lambda"
    settings_of: str = ""


def ours(name: str) -> Callable[[Any, Settings, int], Optimizer]:
    """A class of `ramda_theory.optim` with averaging."""

    def build(params: Any, settings: Settings, steps: int) -> Optimizer:
        from ramda_theory import optim

        made: Optimizer = getattr(optim, name)(params, lr=settings.lr, momentum=1.0 - settings.averaging)
        return made

    return build


def prox_adamw(params: Any, settings: Settings, steps: int) -> Optimizer:
    """ProxAdamW; its betas are torch's."""
    from ramda_theory.optim import ProxAdamW

    return ProxAdamW(params, lr=settings.lr)


def adamw(params: Any, settings: Settings, steps: int) -> Optimizer:
    """torch's AdamW without decay."""
    import torch

    return torch.optim.AdamW(params, lr=settings.lr, weight_decay=0.0)


def normal_map(params: Any, settings: Settings, steps: int) -> Optimizer:
    """NormalMapSGD at its own proximal step."""
    from ramda_theory.optim import NormalMapSGD

    return NormalMapSGD(params, lr=settings.lr)


def gated(params: Any, settings: Settings, steps: int) -> Optimizer:
    """D-Gating."""
    from ramda_theory.workloads.opponents.d_gating import DGating

    return DGating(params, lr=settings.lr)


def bregman(name: str) -> Callable[[Any, Settings, int], Optimizer]:
    """LinBreg or AdaBreg."""

    def build(params: Any, settings: Settings, steps: int) -> Optimizer:
        from ramda_theory.workloads.opponents import bregman

        made: Optimizer = getattr(bregman, name)(params, lr=settings.lr)
        return made

    return build


def pat(params: Any, settings: Settings, steps: int) -> Optimizer:
    """torchao's pruning around AdamW."""
    from ramda_theory.workloads.opponents.pat import PAT

    return PAT(params, lr=settings.lr)


def pruned(adaptive: bool) -> Callable[[Any, Settings, int], Optimizer]:
    """Dense training and pruning at the first milestone; the weight is the share that is pruned."""

    def build(params: Any, settings: Settings, steps: int) -> Optimizer:
        from ramda_theory.workloads.opponents.pruning import Pruned

        return Pruned(params, settings.weight, steps, settings.lr, adaptive)

    return build


ENTRANTS: dict[str, Entrant] = {
    "RAMDA": Entrant(ours("RAMDA"), 1e-2),
    "RMDA": Entrant(ours("RMDA"), 0.3),
    "ProxSGD": Entrant(ours("ProxSGD"), 0.5),
    "ProxAdamW": Entrant(prox_adamw, 1e-3),
    "NormalMapSGD": Entrant(normal_map, 0.1),
    "DGating": Entrant(gated, 0.05),
    "LinBreg": Entrant(bregman("LinBreg"), 0.5),
    "AdaBreg": Entrant(bregman("AdaBreg"), 1e-3),
    "PAT": Entrant(pat, 1e-3),
    "PrunedMSGD": Entrant(pruned(False), 0.5, weight_is="share that is pruned", settings_of="MSGD"),
    "PrunedAdamW": Entrant(pruned(True), 1e-3, weight_is="share that is pruned", settings_of="AdamW"),
    "MADGRAD": Entrant(ours("RAMDA"), 1e-2, structured=False),
    "MDA": Entrant(ours("RMDA"), 0.3, structured=False),
    "MSGD": Entrant(ours("ProxSGD"), 0.5, structured=False),
    "AdamW": Entrant(adamw, 1e-3, structured=False),
}
"""By name."""


def find_entrant(name: str) -> Entrant:
    """The optimizer of a name.

    Parameters
    ----------
    name : str

    Returns
    -------
    Entrant

    Raises
    ------
    ValueError
        Naming all, if there is none.
    """
    if name not in ENTRANTS:
        raise ValueError(f"optimizer must be one of {', '.join(ENTRANTS)}, got {name!r}")
    return ENTRANTS[name]
