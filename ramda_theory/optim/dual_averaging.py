"""What RAMDA and RMDA share: numbers of a step, restarts, and What from the state."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ramda_theory.arrays import sum_of_roots
from ramda_theory.kernels import eager
from ramda_theory.kernels.sharding import local
from ramda_theory.kernels.work import Work
from ramda_theory.optim.base import StructuredOptimizer


class DualAveraging(StructuredOptimizer):
    """An optimizer that keeps weighted sums of gradients and the point W^0 where its stage started."""

    def _reset_attributes(self) -> None:
        super()._reset_attributes()
        self._restart_hooks: list[Callable[[], None]] = []
        self._kept_steps = 0

    def register_restart_pre_hook(self, hook: Callable[[], None]) -> None:
        """Have a function called before every `restart`, while What is still that of the stage that ends.

        Parameters
        ----------
        hook : callable
            Without arguments.
        """
        self._restart_hooks.append(hook)

    @property
    def stage_is_fresh(self) -> bool:
        """Whether no step has been taken since the last `restart` (without memory, What is W then); reads the state."""
        steps = {int(state["step"]) for state in self.state.values() if state}
        return bool(steps) and (steps == {0} or (self._kept_steps > 0 and steps == {self._kept_steps}))

    def _structured_piece(self, group: dict[str, Any], parameter: Tensor) -> Tensor | None:
        work = self._work_of(group, parameter)
        return None if work is None else eager.structured_point(self._recurrence, work)[0]

    def _pull_from_zero(self, group: dict[str, Any], parameter: Tensor) -> Tensor | None:
        """(P W^0 - V) / alpha of this process's piece: where it is in d psi(0), What is zero; None before a step."""
        work = self._work_of(group, parameter)
        if work is None:
            return None
        base, linear, diag = eager.present_subproblem(self._recurrence, work)
        pull: Tensor = diag * base - linear
        return pull.double() / work.weight_sums[0].to(base.device)

    def _work_of(self, group: dict[str, Any], parameter: Tensor) -> Work | None:
        """What belongs to one parameter; None before the first step of a stage."""
        state = self.state.get(parameter)
        if not state or not state["weight_sum"] > 0:
            return None
        arrays = [[state[key]] for key in self._recurrence.arrays]
        w = state.get("w", parameter)
        return Work(group, [parameter], [], [w], arrays, [state["step"]], [state["weight_sum"]], [state])

    def _joint_pieces(self, group: dict[str, Any]) -> Iterator[tuple[Tensor, Tensor]]:
        params = [parameter for parameter in group["params"] if self.state.get(parameter)]
        if not params or not self.state[params[0]]["weight_sum"] > 0:
            return
        states = [self.state[parameter] for parameter in params]
        weights = [state.get("w", parameter) for state, parameter in zip(states, params, strict=True)]
        arrays = [[state[key] for state in states] for key in self._recurrence.arrays]
        steps, sums = ([state[key] for state in states] for key in ("step", "weight_sum"))
        work = Work(group, params, [], weights, arrays, steps, sums, states)
        yield from zip(params, eager.structured_point(self._recurrence, work), strict=True)

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
        for hook in self._restart_hooks:
            hook()
        self._kept_steps = memory
        self._records.clear()
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
