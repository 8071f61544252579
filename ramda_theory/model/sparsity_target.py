"""The weight lambda for a wanted group sparsity, found during one run by feedback."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ramda_theory.arrays import integers, real
from ramda_theory.kernels import eager
from ramda_theory.kernels.nonfinite import nonfinite_here
from ramda_theory.kernels.work import Work
from ramda_theory.model.quantile import log_quantile, share_below
from ramda_theory.model.wrappers import unwrapped
from ramda_theory.regularizers import Regularizer

BISECTIONS = 6
"""Weights tried at a measurement where w_hat can be solved for again."""


class SparsityTarget:
    r"""Steer the regularizer's weight until a wanted share of the entries lies in zero groups.

    Every ``every`` steps the weighted group sparsity s of w_hat (of w, where an optimizer does not average) is
    measured.  With RAMDA and RMDA the weight whose w_hat has the wanted sparsity is found, between exp(-r) and exp(r)
    times the present one.  For `GroupLasso` it is a quantile: a group of the solution of (4) is zero if and only if

    .. math:: \lVert (P W^0 - V)_g \rVert \le \alpha \lambda \sqrt{n_g}.

    For other psi the present subproblem is solved again with other weights.  For the other optimizers the weight is
    multiplied by

    .. math:: \exp\bigl(\mathrm{clip}(g\,(s^\star - s - h\,\Delta s),\, -r,\, r)\bigr),

    :math:`\Delta s` the change since the measurement before, so that the weight stops growing while groups still
    leave.  Their structure may swing from step to step whatever the weight.  So in the last ``every`` of ``steps``
    steps the weight is a quantile for them too, of the very step that is about to be taken: its gradients and the state
    say of each group of a `GroupLasso` whether it will be zero.  (With another psi those steps are as the others.)

    Within ``tolerance`` of the target the weight stays, and the run is one at a constant lambda: what is known of
    identification (Theorem 3 of arXiv:2403.14398) speaks of that part.  After a restart the first ``settle`` steps of
    the stage are not measured, for w_hat then follows from a few gradients.

    Parameters
    ----------
    optimizer : Optimizer
        Whose parameter groups carry regularizers with groups, such as `GroupLasso`, of weights above zero: the run
        begins with them.
    target : float or sequence of float
        The wanted weighted group sparsity, in (0, 1).  A sequence has one per parameter group, None for those that are
        left alone: `structured_param_groups` makes a group per kind of layer.
    every : int
        Steps between measurements.  With RAMDA, RMDA and another psi than `GroupLasso` a measurement solves for w_hat,
        and up to six times more off the target.
    settle : int
        Steps of a stage before the first measurement.
    steps : int, optional
        Of the whole run.  Without it the last steps of `ProxSGD`, `ProxAdamW` and `NormalMapSGD` are as the others;
        `RAMDA` and `RMDA` do not need it.
    gain, horizon, rate : float
        g > 0, h >= 0 in measurements, r > 0.
    tolerance : float
        Distance from the target that is left alone.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range, or a group that is to be steered has no regularizer with groups, or one of
        weight 0.

    Examples
    --------
    >>> target = SparsityTarget(optimizer, target=0.8)  # doctest: +SKIP
    >>> optimizer.step(); target.step(); schedule.step()  # doctest: +SKIP
    """

    def __init__(
        self,
        optimizer: Any,
        target: float | Sequence[float | None] = 0.8,
        *,
        every: int = 10,
        settle: int = 30,
        steps: int | None = None,
        gain: float = 4.0,
        horizon: float = 5.0,
        rate: float = 0.3,
        tolerance: float = 0.002,
    ) -> None:
        self.optimizer = unwrapped(optimizer)
        if not hasattr(self.optimizer, "structured_point"):
            raise TypeError(f"optimizer must be one of ramda_theory.optim, got {type(self.optimizer).__name__}")
        groups = self.optimizer.param_groups
        carry = [group.get("regularizer") is not None for group in groups]
        if isinstance(target, (str, Tensor)) or not isinstance(target, Sequence):
            wanted = real_share(target)
            self._parts: list[tuple[float, list[int]]] = [(wanted, [i for i, has in enumerate(carry) if has])]
        else:
            if len(target) != len(groups):
                raise ValueError(f"target must have one number per parameter group ({len(groups)}), got {len(target)}")
            self._parts = [(real_share(each), [i]) for i, each in enumerate(target) if each is not None]
        steered = [i for _, indices in self._parts for i in indices]
        if not steered:
            raise ValueError("nothing to steer: no parameter group carries a regularizer")
        for i in steered:
            check_steerable(i, groups[i])
        self.every, self.settle = integers("every", every)[0], integers("settle", settle)[0]
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {every!r}")
        if self.settle < 0:
            raise ValueError(f"settle must be at least 0, got {settle!r}")
        self.gain = real("gain", gain, minimum=0.0, strict=True)
        self.horizon = real("horizon", horizon, minimum=0.0)
        self.rate = real("rate", rate, minimum=0.0, strict=True)
        self.tolerance = real("tolerance", tolerance, minimum=0.0)
        self._last = math.inf if steps is None else float(integers("steps", steps)[0])
        if self._last < 1:
            raise ValueError(f"steps must be at least 1, got {steps!r}")
        self._hook()
        self._count = 0
        self._before: list[float | None] = [None] * len(self._parts)

    def _hook(self) -> None:
        """Be asked before every step, where there are last ones."""
        if math.isfinite(self._last) and not hasattr(self.optimizer, "stage_is_fresh"):
            self.optimizer.register_step_pre_hook(self._before_step)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._hook()  # a copy of an optimizer has no hooks

    @property
    def weights(self) -> list[float | None]:
        """The present weight of every parameter group; None where it is not steered.

        Returns
        -------
        list
        """
        steered = {i for _, indices in self._parts for i in indices}
        groups = self.optimizer.param_groups
        return [group["regularizer"].weight if i in steered else None for i, group in enumerate(groups)]

    def sparsity(self) -> list[float]:
        """Weighted group sparsity now, of w_hat where the optimizer averages, for every target.

        Returns
        -------
        list of float
        """
        known = [self._critical_factors(indices) for _, indices in self._parts]
        pieces = dict(self._points()) if None in known else {}
        return [
            self._share(indices, pieces) if factors is None else share_below(*factors)
            for factors, (_, indices) in zip(known, self._parts, strict=True)
        ]

    def step(self) -> None:
        """Count a step of the optimizer, to be called after it and before the schedule's; steer where one is due.

        Raises
        ------
        RuntimeError
            Inside `structured_point`, where the model does not hold its own weights.
        """
        if getattr(self.optimizer, "_holds_structured_point", False):
            raise RuntimeError("SparsityTarget.step() is not possible inside structured_point()")
        ending = self._ending()
        self._count += 1
        age = self._stage_age()
        if self._count % self.every or age < self.settle:
            if age < self.settle:
                self._before = [None] * len(self._parts)
            return
        for k, ((target, indices), share) in enumerate(zip(self._parts, self.sparsity(), strict=True)):
            before, self._before[k] = self._before[k], share
            change = 0.0 if before is None else share - before
            if abs(target - share) <= self.tolerance or (ending and self._has_quantile(indices)):
                continue
            if (factors := self._critical_factors(indices)) is not None:
                self._multiply(indices, math.exp(min(max(log_quantile(*factors, target), -self.rate), self.rate)))
            elif hasattr(self.optimizer, "stage_is_fresh"):
                self._search(target, indices)
            else:
                wish = self.gain * (target - share - self.horizon * change)
                self._multiply(indices, math.exp(min(max(wish, -self.rate), self.rate)))

    def _ending(self) -> bool:
        """Whether the coming step is one of the last, whose weights are quantiles of that step itself."""
        return not hasattr(self.optimizer, "stage_is_fresh") and 0 <= self._last - 1 - self._count < self.every

    def _has_quantile(self, indices: list[int]) -> bool:
        """Whether the state tells which groups will be zero."""
        return all(self.optimizer.param_groups[i]["regularizer"].sum_of_group_norms for i in indices)

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """Near the end, let the coming step reach the target; what a closure computes is waited for."""
        if not self._ending():
            return None
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._meet()
            return None

        def closed() -> Any:
            loss = closure()
            self._meet()
            return loss

        return args[:1], {**kwargs, "closure": closed}

    def _meet(self) -> None:
        """Set the weights with which a step with the present gradients reaches the target, however far they are."""
        if not self._nonfinite():
            for target, indices in self._parts:
                if (factors := self._critical_factors(indices, coming=True)) is not None:
                    self._multiply(indices, math.exp(log_quantile(*factors, target)))

    def _nonfinite(self) -> bool:
        """Whether a gradient is not finite: what becomes of the step then the optimizer says."""
        groups = self.optimizer.param_groups
        params = [each for group in groups for each in group["params"] if each.grad is not None]
        return bool(params) and bool(nonfinite_here(params))

    def _critical_factors(self, indices: list[int], coming: bool = False) -> tuple[Tensor, Tensor] | None:
        """By what the weights had to be multiplied for each group of w_hat to become zero, and the groups' sizes.

        Of the present w_hat, or of the one that a step with the present gradients will have.  None where that is not
        known: for another psi than the group LASSO, or before the first step of a stage.
        """
        pull = coming_pull(self.optimizer) if coming else getattr(self.optimizer, "_pull_from_zero", None)
        factors, sizes, moved = [], [], False
        for i in indices:
            group = self.optimizer.param_groups[i]
            psi = group["regularizer"]
            if pull is None or not psi.sum_of_group_norms:
                return None
            for parameter in group["params"]:
                with torch.no_grad():
                    pulled = pull(group, parameter)
                if pulled is None:  # without a gradient so far: it stays what it is
                    norms = psi.group_norms(parameter.detach()).reshape(-1)
                    factors.append(torch.where(norms > 0, torch.inf, 0.0).to(torch.float64))
                else:
                    factors.append(psi.piece_sizes(pulled, pulled)[1])
                    moved = True
                like = parameter.detach()
                sizes.append(psi.groups(like).total(torch, torch.ones_like(like, dtype=torch.float64)).reshape(-1))
        return (torch.cat(factors), torch.cat(sizes)) if moved else None

    def _search(self, target: float, indices: list[int]) -> None:
        """Bisect the factor, between exp(-rate) and exp(rate): w_hat is solved for again with every weight tried."""
        groups = self.optimizer.param_groups
        begun = {i: groups[i]["regularizer"] for i in indices}
        low, high = -self.rate, self.rate
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            for i, psi in begun.items():
                groups[i]["regularizer"] = psi
            self._multiply(indices, math.exp(middle))
            share = self._share(indices, dict(self._points()))
            if abs(share - target) <= 0.5 * self.tolerance:
                return
            low, high = (middle, high) if share < target else (low, middle)

    def _multiply(self, indices: list[int], factor: float) -> None:
        for i in indices:
            group = self.optimizer.param_groups[i]
            group["regularizer"] = replace(group["regularizer"], weight=group["regularizer"].weight * factor)

    def _stage_age(self) -> int:
        """Steps since the last restart; all steps where the optimizer does not restart."""
        if not hasattr(self.optimizer, "stage_is_fresh"):
            return self._count
        steps = (
            state["step"]
            for group in self.optimizer.param_groups
            for parameter in group["params"]
            if "step" in (state := self.optimizer.state.get(parameter, {}))
        )
        return max((int(step) for step in steps), default=0)

    def _points(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The parameters whose w_hat is another point, with it."""
        with torch.no_grad():
            find = getattr(self.optimizer, "_structured_points", None)
            yield from () if find is None else find()

    def _share(self, indices: list[int], pieces: dict[Tensor, Tensor]) -> float:
        zero = total = 0.0
        for i in indices:
            psi: Regularizer = self.optimizer.param_groups[i]["regularizer"]
            groups: Any = psi.as_groups
            for parameter in self.optimizer.param_groups[i]["params"]:
                point = pieces.get(parameter, parameter.detach())
                norms = groups.group_norms(point)
                sizes = groups.groups(point).total(torch, torch.ones_like(point))
                zero += float((sizes * (norms == 0)).sum())
                total += point.numel()
        return zero / total if total else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Targets, count and last measurements, plain data; the weights are in the optimizer's own state.

        Returns
        -------
        dict
        """
        return {"count": self._count, "before": list(self._before), "targets": [part[0] for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the one with this state was; load the optimizer's own state_dict as well.

        Parameters
        ----------
        state_dict : dict
            What `state_dict` returned.

        Raises
        ------
        TypeError, ValueError
            If it is not a state of a `SparsityTarget`, or of one with other targets; nothing has changed then.
        """
        if not isinstance(state_dict, dict):
            raise TypeError(f"state must be a dict, got {state_dict!r}")
        if set(state_dict) != {"count", "before", "targets"}:
            raise ValueError(f"state must have the keys before, count and targets, got {sorted(map(str, state_dict))}")
        own = [part[0] for part in self._parts]
        if list(state_dict["targets"]) != own:
            raise ValueError(f"the state is of the targets {state_dict['targets']!r}, here they are {own!r}")
        count, before = integers("count", state_dict["count"])[0], list(state_dict["before"])
        if count < 0 or len(before) != len(own):
            raise ValueError(f"state must have a count of at least 0 and {len(own)} measurements, got {state_dict!r}")
        self._count = count
        self._before = [None if each is None else real("before", each, minimum=0.0) for each in before]


def coming_pull(optimizer: Any) -> Callable[[dict[str, Any], Tensor], Tensor | None]:
    """(P base - b) / scale of the step that is about to be taken: where it is in d psi(0), the new W is zero."""

    def pull(group: dict[str, Any], parameter: Tensor) -> Tensor | None:
        state, recurrence = optimizer.state.get(parameter), optimizer._recurrence
        if not state or parameter.grad is None:
            return None
        arrays, w = [[state[key]] for key in recurrence.arrays], state.get("w", parameter)
        grad_scale = getattr(optimizer, "grad_scale", None)  # what a GradScaler left to the step
        gradient = parameter.grad if grad_scale is None else parameter.grad.float() / grad_scale
        one = Work(group, [parameter], [gradient], [w], arrays, [state["step"]], [], [state])
        base, linear, diag, scale = eager.coming_subproblem(recurrence, one)
        pulled: Tensor = (diag * base - linear).double()
        return pulled / scale

    return pull


def real_share(value: Any) -> float:
    """A target in (0, 1)."""
    share = real("target", value, minimum=0.0, strict=True)
    if share >= 1:
        raise ValueError(f"target must be in (0, 1), got {value!r}")
    return share


def check_steerable(index: int, group: dict[str, Any]) -> None:
    """Refuse a group without zeros to count, without a weight to multiply, or cut among processes."""
    psi = group.get("regularizer")
    if psi is None or psi.as_groups is None or psi.joint_shapes is not None:
        name = "none" if psi is None else type(psi).__name__
        raise ValueError(f"param_groups[{index}] needs a regularizer with groups inside each weight, got {name}")
    if not psi.weight > 0:
        raise ValueError(f"param_groups[{index}] needs a regularizer of weight > 0 to begin with, got {psi.weight!r}")
    if any(hasattr(parameter, "full_tensor") for parameter in group["params"]):
        raise ValueError(f"param_groups[{index}] is cut among processes: a target is steered on whole weights only")
