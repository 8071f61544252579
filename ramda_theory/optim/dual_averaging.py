"""What RAMDA and RMDA share: numbers of a step, restarts, and What from the state."""

from __future__ import annotations

import math
import operator
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ramda_theory.arrays import sum_of_roots
from ramda_theory.kernels.sharding import local
from ramda_theory.optim.base import StructuredOptimizer
from ramda_theory.optim.lists import assign, may_look, scalar, still


class DualAveraging(StructuredOptimizer):
    """An optimizer that keeps weighted sums of gradients and the point W^0 where its stage started."""

    @abstractmethod
    def _point(self, group: dict[str, Any], parameter: Tensor, state: dict[str, Tensor]) -> Tensor:
        """This process's piece of What, from the sums."""

    def _structured_piece(self, group: dict[str, Any], parameter: Tensor) -> Tensor | None:
        state = self.state[parameter]
        return self._point(group, parameter, state) if state["weight_sum"] > 0 else None

    @staticmethod
    def _numbers(group: dict[str, Any], state: dict[str, Tensor]) -> tuple[Tensor | float, Tensor | float]:
        """t and alpha as the step has them, so that What has the same last bits: numbers, or tensors without axes."""
        t, alpha = state["step"], scalar(state["weight_sum"])
        return (float(t), float(alpha)) if may_look(group, [t]) else (t, alpha)

    @torch.no_grad()
    def restart(self, memory: int = 0) -> None:
        """Start a stage: anchor at the present weights, and forget the gradients or keep their averages.

        W^0 = W and t = alpha = V = U = 0.  With ``memory`` = m > 0 the averages V/alpha and U/alpha are kept, as if m
        steps had been taken at the present lr: t = m, alpha = sum_{k <= m} lr sqrt(k).  Parameters that have had no
        gradient yet are left alone.

        Parameters
        ----------
        memory : int
            m >= 0, in steps.

        Raises
        ------
        TypeError, ValueError
            If ``memory`` is not an integer >= 0.
        RuntimeError
            Inside `structured_point`.
        """
        self.refuse_structured_point("restart()")
        memory = nonnegative_integer("memory", memory)
        roots = sum_of_roots(memory)
        self.inexactness.clear()
        for group in self.param_groups:
            for parameter in group["params"]:
                if state := self.state.get(parameter):
                    lr = group["lr"].to(parameter.device) if isinstance(group["lr"], Tensor) else group["lr"]
                    self._restart(state, state.get("w", parameter), lr * roots, memory)

    def _restart(self, state: dict[str, Tensor], w: Tensor, weight_sum: Tensor | float, memory: int) -> None:
        old = state["weight_sum"]
        seen = (old > 0).to(old.dtype)  # without a gradient of nonzero weight there is no average to keep
        new = seen * weight_sum
        kept = (new / (old + (1.0 - seen))).reshape(())
        for key in ("grad_sum", "grad_sq_sum"):
            if key in state and memory:
                local(state[key]).mul_(kept)
            elif key in state:
                local(state[key]).zero_()
        local(state["anchor"]).copy_(local(w))
        state["step"].copy_((seen * memory).reshape(()))
        state["weight_sum"].copy_(new)


def nonnegative_integer(name: str, value: Any) -> int:
    """``value`` as an integer >= 0."""
    try:
        checked = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} must be an integer, got {value!r}") from error
    if checked < 0:
        raise ValueError(f"{name} must be >= 0, got {checked}")
    return checked


def advance(
    steps: Sequence[Tensor], weight_sums: Sequence[Tensor], lr: Tensor | float
) -> tuple[int, float, list[float]]:
    """t <- t + 1, alpha <- alpha + s with s = lr sqrt(t), for parameters of one t: (t, s, every alpha)."""
    torch._foreach_add_(list(steps), 1)
    t = int(steps[0].item())
    s = max(float(lr), 0.0) * math.sqrt(t)
    torch._foreach_add_(list(weight_sums), s)
    return t, s, [weight_sum.item() for weight_sum in weight_sums]


def masked_advance(
    step: Tensor, weight_sum: Tensor, lr: Tensor | float, keep: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor]:
    """`advance` for one parameter in tensors, changing nothing but t where lr is the number 0: (t, s, alpha)."""
    t = step + 1
    if not isinstance(lr, Tensor) and lr == 0:
        assign(step, t, keep)
        return t, None, weight_sum
    s = scalar(lr) * t.double().sqrt()
    return t, s, weight_sum.reshape(()) + s


def masked_average(w: Tensor, point: Tensor, options: dict[str, Any], keep: Tensor | None) -> None:
    """w <- (1 - c) w + c point, unless ``keep`` or lr = 0."""
    c = 1.0 - scalar(options["momentum"])
    average = torch.lerp(w, point, c.to(w.dtype) if isinstance(c, Tensor) else c)
    assign(w, average, still(scalar(options["lr"]), keep))
