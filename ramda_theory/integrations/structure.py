"""What the callbacks of all trainers share: the optimizer's structure as numbers, adoption at the end, early checks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ramda_theory.model.critical import warn_of_critical_weights
from ramda_theory.model.layers import LEVELS
from ramda_theory.model.tracker import StructureTracker
from ramda_theory.model.wrappers import unwrapped
from ramda_theory.optim.base import StructuredOptimizer
from ramda_theory.optim.schedule import StageSchedule


class Following:
    """Follows one optimizer of ``ramda_theory.optim`` through a trainer's run.

    Parameters
    ----------
    optimizer : Optimizer
        Or a trainer's wrapper around it.
    schedules : sequence
        The trainer's schedulers, wrapped or not.
    log_to : optional
        As in `StructureTracker.log_to`.
    """

    def __init__(self, optimizer: Any, schedules: list[Any], log_to: Any = None) -> None:
        inner = unwrapped(optimizer)
        if not isinstance(inner, StructuredOptimizer):
            raise TypeError(f"StructureCallback needs an optimizer of ramda_theory.optim, got {type(inner).__name__}")
        self.optimizer: Any = inner
        self.stages = [found for each in schedules if (found := stages_in(each)) is not None]
        regularized = any(group.get("regularizer") is not None for group in inner.param_groups)
        self.tracker = StructureTracker(inner, unit="epoch") if regularized else None
        if self.tracker is not None and log_to is not None:
            self.tracker.log_to(log_to)
        if hasattr(inner, "restart") and not self.stages:
            warnings.warn(
                f"{type(inner).__name__} averages its weights and no StageSchedule was found among the trainer's "
                "schedulers: the averaging weight never grows to 1, and adopting w_hat at the end changes the model",
                stacklevel=3,
            )

    def scalars(self) -> dict[str, float]:
        """Levels of w and w_hat now, as "structure/w_hat/group_sparsity"; a record is taken."""
        if self.tracker is None:
            return {}
        self.tracker.record()
        found: dict[str, float] = {}
        for point in self.tracker.points:
            total = type(self.tracker.layers(-1, point)[0]).total(self.tracker.layers(-1, point))
            found |= {
                f"structure/{point}/{level}": value for level in LEVELS if (value := getattr(total, level)) is not None
            }
        return found

    def look_at_gradients(self) -> None:
        """Warn of weights so large that a layer would die, from the gradients of the first step."""
        warn_of_critical_weights(self.optimizer.param_groups)

    def adopt(self) -> None:
        """Make w_hat the weights."""
        self.optimizer.adopt_structured_point()

    @contextmanager
    def structured_state(self, model: nn.Module) -> Iterator[Mapping[str, Tensor]]:
        """The model's state_dict at w_hat."""
        with self.optimizer.structured_point():
            yield model.state_dict()


def stages_in(schedule: Any) -> StageSchedule | None:
    """The `StageSchedule` in a scheduler, a trainer's wrapper of one, or a chain or sequence."""
    if schedule is None or isinstance(schedule, StageSchedule):
        return schedule
    inside = [getattr(schedule, "scheduler", None), *getattr(schedule, "_schedulers", ())]
    return next((found for each in inside if (found := stages_in(each)) is not None), None)
