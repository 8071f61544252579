"""Dense training, then magnitude pruning of the same groups, then training of what is left: the plain opponent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ramda_theory.workloads.opponents.base import Opponent, needs_groups


class Pruned(Opponent):
    """AdamW or momentum SGD; after ``at`` steps the smallest groups are set to zero, and stay there.

    Groups of all parameters are ranked together by their root mean square, and the smallest are taken until their
    entries make up ``share`` of all entries in groups.

    Parameters
    ----------
    params : iterable
        Parameters or groups; those with a regularizer can be pruned in its groups, its weight does not matter.
    share : float
        Weighted group sparsity to reach, in [0, 1).
    at : int
        Steps before pruning.
    lr : float
    adaptive : bool
        AdamW without decay (betas 0.9, 0.999); else m = 0.9 m + 0.1 g.
    """

    def __init__(self, params: Iterable[Any], share: float, at: int, lr: float, adaptive: bool) -> None:
        if not 0 <= share < 1:
            raise ValueError(f"the share that is pruned must be in [0, 1), got {share!r}")
        super().__init__(params, {"lr": lr, "share": share, "at": at, "adaptive": adaptive, "done": 0})
        for _, regularizer in self.structured():
            needs_groups(regularizer, "magnitude pruning")

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """A step; the one after which pruning is due prunes."""
        loss = super().step(closure)
        for group in self.param_groups:
            group["done"] += 1
        if self.param_groups[0]["done"] == self.param_groups[0]["at"]:
            self.prune(self.param_groups[0]["share"])
        return loss

    def update(self, w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        """The dense step, on what is left."""
        if "m" not in state:
            state["m"], state["u"] = torch.zeros_like(g), torch.zeros_like(g)
        m, t = state["m"].lerp_(g, 0.1), group["done"] + 1
        if group["adaptive"]:
            u = state["u"].lerp_(g * g, 1e-3)
            m = m / (1.0 - 0.9**t) / ((u / (1.0 - 0.999**t)).sqrt() + 1e-8)
        w.sub_(group["lr"] * m)
        if "mask" in state:
            w.mul_(state["mask"])

    def prune(self, share: float) -> None:
        """Set the smallest groups to zero for good."""
        found = []
        for number, (w, regularizer) in enumerate(self.structured()):
            psi = needs_groups(regularizer, "magnitude pruning")
            sizes = psi.groups(w).total(torch, torch.ones_like(w))
            root = (psi.group_norms(w) / sizes.sqrt()).flatten().tolist()
            entries = sizes.flatten().tolist()
            found += [(root[i], entries[i], number, i) for i in range(len(root))]
        wanted, taken = share * sum(count for _, count, *_ in found), 0.0
        gone: dict[int, list[int]] = {}
        for _, count, number, i in sorted(found, key=lambda each: each[0]):
            if taken >= wanted:
                break
            taken += count
            gone.setdefault(number, []).append(i)
        for number, (w, regularizer) in enumerate(self.structured()):
            psi = needs_groups(regularizer, "magnitude pruning")
            alive = torch.ones_like(psi.group_norms(w))
            alive.view(-1)[gone.get(number, [])] = 0.0
            self.state[w]["mask"] = psi.spread(alive.to(w.dtype), w).expand_as(w).clone()
            w.mul_(self.state[w]["mask"])
