"""Stages: lr and eps decay, restarts, and the averaging weight that grows to 1 in the last stage."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ramda_theory.arrays import integers, real
from ramda_theory.model.critical import warn_of_critical_weights
from ramda_theory.model.wrappers import unwrapped
from ramda_theory.optim.base import StructuredOptimizer
from ramda_theory.optim.dual_averaging import DualAveraging, nonnegative_integer


class StageSchedule(LRScheduler):
    r"""The stages of Appendix A.1 of arXiv:2403.14398, to be stepped after every ``optimizer.step()``.

    At a milestone every group's ``lr`` and ``eps`` are multiplied by ``gamma`` and the optimizer restarts at the
    present weights.  In the last stage, step i of it averages with :math:`c_i = \min(c \sqrt i, 1)`, c = 1 - momentum
    of the group, so that the weights reach the structure of What.  Optimizers without averaging (ProxSGD, ProxAdamW)
    have only their lr decayed, as in the paper's comparisons.

    Parameters
    ----------
    optimizer : Optimizer
        Or a wrapper of accelerate, Lightning or DeepSpeed around one: what is found by following ``.optimizer``.
    milestones : sequence of int
        Steps (calls of `step`) after which a new stage begins, increasing and positive; epochs if
        ``steps_per_epoch`` is given.  Empty: one stage, which is the last.
    gamma : float
        Factor > 0.
    memory : int
        Steps' worth of gradient averages that the first restart keeps (`DualAveraging.restart`); 0 forgets all, as
        published.
    grow_averaging : bool
        Whether the averaging weight grows in the last stage.
    steps_per_epoch : int, optional
        Calls of `step` per epoch, for milestones counted in epochs.
    memory_growth : float
        Each further restart keeps this many times as much as the one before, > 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range, ``memory`` is asked of an optimizer that does not restart, or the averaging
        weight is to grow while OneCycleLR or CyclicLR cycles the momentum.

    Notes
    -----
    The decay multiplies the present lr, as torch's chainable schedulers do (StepLR, ExponentialLR, CosineAnnealingLR,
    ...), and composes with them in any order.  A scheduler that sets the lr from its own base value (LambdaLR,
    OneCycleLR) overrides it.

    A tensor lr or momentum is changed in place, so that a compiled step sees it without being compiled again.

    ``momentum`` belongs to this schedule in the last stage: if another scheduler changes it then, `step` raises.  Make
    OneCycleLR and CyclicLR with ``cycle_momentum=False``, or this schedule with ``grow_averaging=False``.

    A torch ``LRScheduler`` by what it offers (``step``, ``get_last_lr``, ``last_epoch``, ``state_dict``); unlike theirs
    it takes no step when it is made, and enters no ``initial_lr`` into the groups.  In a ``ChainedScheduler`` it steps
    with the others; in a ``SequentialLR`` its steps are counted from where its turn begins, such as the end of a
    warm-up, from the initial lr; its turn must be the last.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        memory: int = 0,
        *,
        grow_averaging: bool = True,
        steps_per_epoch: int | None = None,
        memory_growth: float = 1.0,
    ) -> None:
        self._inner = unwrapped(optimizer)
        self.optimizer = optimizer
        self.milestones = integers("milestones", milestones)
        if any(b <= a for a, b in zip((0, *self.milestones), self.milestones, strict=False)):
            raise ValueError(f"milestones must be positive and increasing, got {milestones!r}")
        self.gamma = real("gamma", gamma, minimum=0.0, strict=True)
        self.memory = nonnegative_integer("memory", memory)
        self.memory_growth = real("memory_growth", memory_growth, minimum=0.0, strict=True)
        if self.memory and not isinstance(self._inner, DualAveraging):
            name = type(self._inner).__name__
            raise ValueError(f"memory must be 0 for {name}, which does not restart, got {memory}")
        if not isinstance(grow_averaging, bool):
            raise TypeError(f"grow_averaging must be True or False, got {grow_averaging!r}")
        self.grow_averaging = grow_averaging and isinstance(self._inner, DualAveraging)
        self.steps_per_epoch = 1 if steps_per_epoch is None else nonnegative_integer("steps_per_epoch", steps_per_epoch)
        if not self.steps_per_epoch:
            raise ValueError(f"steps_per_epoch must be at least 1, got {steps_per_epoch}")
        if problem := self._cycled_momentum():
            raise ValueError(problem)
        self.base_lrs = [
            group.get("initial_lr", lr) for group, lr in zip(self._groups, self.get_last_lr(), strict=True)
        ]
        self._averaging: list[float] = []
        self._set_momentum: list[float] = []
        self._initial_step()

    def _initial_step(self) -> None:
        """Begin with the first stage; no step is taken.  SequentialLR calls it where this schedule's turn begins."""
        self._step_count = 1
        self.last_epoch = 0
        self._average()

    def _update_lr(self, epoch: int | None = None) -> None:
        """What SequentialLR calls, with 0, instead of `step` where this schedule's turn begins: at its initial lr."""
        for group, lr in zip(self._groups, self.base_lrs, strict=False):
            set_option(group, "lr", lr)
        self._initial_step()

    @property
    def stage(self) -> int:
        """Stage of the next step, from 0."""
        return bisect_right(self.milestones, self.count // self.steps_per_epoch)

    def step(self, epoch: int | None = None) -> None:
        """Count a step of the optimizer; begin a stage if that was the last one before a milestone.

        Parameters
        ----------
        epoch : None
            Torch's deprecated argument: a number is refused.

        Raises
        ------
        RuntimeError
            Inside `structured_point`, or if another scheduler has changed the momentum in the last stage; nothing has
            changed then.
        ValueError
            If ``epoch`` is given.

        Warns
        -----
        UserWarning
            In the first step, if a weight is at or above the critical one of the gradients: a layer would become zero.
        """
        if epoch is not None:
            raise ValueError(f"epoch must be left out, stages follow one another: got {epoch!r}")
        if isinstance(self._inner, StructuredOptimizer):
            self._inner.refuse_structured_point("StageSchedule.step()")
        if problem := self._cycled_momentum() or self._foreign_momentum():
            raise RuntimeError(problem)
        if self.last_epoch == 0 and isinstance(self._inner, StructuredOptimizer):
            warn_of_critical_weights(self._groups)
        stage = self.stage
        self._step_count += 1
        self.last_epoch += 1
        if self.stage > stage:
            self._begin_stage()
        self._average()

    def _begin_stage(self) -> None:
        decayed = ("lr", "eps") if isinstance(self._inner, DualAveraging) else ("lr",)
        # All new values before the first is set: groups may share one tensor lr.
        values = [(group, key, group[key] * self.gamma) for group in self._groups for key in decayed if key in group]
        for group, key, value in values:
            set_option(group, key, value)
        if isinstance(self._inner, DualAveraging):
            self._inner.restart(round(min(self.memory * self.memory_growth ** (self.stage - 1), 1e9)))

    def _average(self) -> None:
        """Set every group's momentum to 1 - c_i for the next step, i-th of the last stage."""
        if not self.grow_averaging or self.stage < len(self.milestones):
            return
        begun = self.milestones[-1] * self.steps_per_epoch if self.milestones else 0
        i = self.count - begun + 1
        for index, group in enumerate(self._groups):
            if index == len(self._averaging):  # the stage begins, or the group is new
                self._averaging.append(1.0 - float(group["momentum"]))
            if i > 1:
                set_option(group, "momentum", 1.0 - min(self._averaging[index] * math.sqrt(i), 1.0))
        self._set_momentum = [] if i == 1 else [seen(group["momentum"]) for group in self._groups]

    def _cycled_momentum(self) -> str:
        """What is wrong with a scheduler that cycles the momentum of an optimizer whose averaging is to grow."""
        if self.grow_averaging and any("max_momentum" in group for group in self._groups):
            return (
                "OneCycleLR or CyclicLR cycles the momentum of this optimizer, which is 1 - the averaging weight that "
                "StageSchedule lets grow: make it with cycle_momentum=False, or StageSchedule with grow_averaging=False"
            )
        return ""

    def _foreign_momentum(self) -> str:
        """Who else has set a momentum since the last step of the last stage."""
        for index, (group, own) in enumerate(zip(self._groups, self._set_momentum, strict=False)):
            if (found := seen(group["momentum"])) != own:
                return (
                    f"the momentum of group {index} was set to {found:g} from outside, where StageSchedule lets the "
                    f"averaging weight 1 - momentum grow and had set {own:g}: leave it alone there, or make "
                    "StageSchedule with grow_averaging=False"
                )
        return ""

    @property
    def count(self) -> int:
        """Calls of `step` so far; torch's schedulers call it ``last_epoch``."""
        return self.last_epoch

    def get_last_lr(self) -> list[float | Tensor]:
        """The present lr of every group.

        Returns
        -------
        list of float or Tensor
        """
        return [group["lr"].clone() if isinstance(group["lr"], Tensor) else group["lr"] for group in self._groups]

    def get_lr(self) -> list[float | Tensor]:
        """The lr of every group as they are: `step` changes them itself.

        Returns
        -------
        list of float or Tensor
            As `get_last_lr`.
        """
        return self.get_last_lr()

    @property
    def _groups(self) -> list[dict[str, Any]]:
        return self._inner.param_groups

    @property
    def _own_settings(self) -> dict[str, Any]:
        return {
            "milestones": list(self.milestones),
            "gamma": self.gamma,
            "memory": self.memory,
            "memory_growth": self.memory_growth,
            "steps_per_epoch": self.steps_per_epoch,
            "grow_averaging": self.grow_averaging,
        }

    def state_dict(self) -> dict[str, Any]:
        """The settings, the steps counted and the groups' averaging weights at the start of the last stage: plain data.

        lr, eps and momentum are in the optimizer's own state_dict.

        Returns
        -------
        dict
        """
        return {"count": self.count, "averaging": list(self._averaging), **self._own_settings}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the schedule with this state was; load the optimizer's own state_dict as well.

        Parameters
        ----------
        state_dict : dict
            What `state_dict` returned; older versions kept no settings, or fewer, which are then not compared.

        Raises
        ------
        TypeError, ValueError
            If the state is not one of a `StageSchedule`, or of one with other milestones or settings; nothing has
            changed then.
        """
        if not isinstance(state_dict, dict):
            raise TypeError(f"state must be a dict, got {state_dict!r}")
        own, given = self._own_settings, {"count", "averaging"}
        if set(state_dict) not in (given, given | set(own), given | set(own) - {"memory_growth"}):
            raise ValueError(f"state must have the keys {sorted(given | set(own))}, got {sorted(map(str, state_dict))}")
        count = nonnegative_integer("count", state_dict["count"])
        if not isinstance(state_dict["averaging"], (list, tuple)):
            raise TypeError(f"averaging must be a list of numbers, got {state_dict['averaging']!r}")
        averaging = [real("averaging", c, minimum=0.0) for c in state_dict["averaging"]]
        if any(c > 1 for c in averaging):
            raise ValueError(f"averaging must be at most 1, got {averaging}")
        for name, value in own.items():
            saved = state_dict.get(name, value)
            if (list(saved) if isinstance(saved, tuple) else saved) != value:
                raise ValueError(
                    f"the state is of a schedule with {name} {saved!r}, this one has {value!r}: "
                    f"make it with {name}={saved!r} to go on"
                )
        self.last_epoch, self._averaging, self._step_count = count, averaging, count + 1
        self._set_momentum = []  # the optimizer's own state, with its momentum, may be loaded before or after


def seen(momentum: float | Tensor) -> float:
    """A momentum as a number; that of a tensor on an accelerator, which would have to be waited for, is 0."""
    return float(momentum) if not isinstance(momentum, Tensor) or momentum.is_cpu else 0.0


def set_option(group: dict[str, Any], key: str, value: Any) -> None:
    """Change an option of a parameter group, a tensor in place."""
    if isinstance(group[key], Tensor):
        group[key].fill_(value)
    else:
        group[key] = value
