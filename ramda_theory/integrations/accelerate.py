"""`StructureCallback` for loops written with accelerate."""

from __future__ import annotations

from typing import Any

from ramda_theory.integrations.structure import Following, stages_in


class StructureCallback:
    """Structure, checks and adoption in a loop that accelerate prepares.

    Call `epoch_end` after every epoch and `train_end` after the last.

    Parameters
    ----------
    accelerator : accelerate.Accelerator
    optimizer : Optimizer
        What ``accelerator.prepare`` gave, or the optimizer inside.
    schedule : optional
        The `StageSchedule`, or what ``accelerator.prepare`` gave for it.
    adopt : bool
        Make w_hat the weights in `train_end`.
    log_to : optional
        As in `StructureTracker.log_to`.

    Raises
    ------
    TypeError
        If the optimizer is not one of ``ramda_theory.optim``.
    ValueError
        If accelerate would step the schedule several times per step.

    Notes
    -----
    With several processes accelerate steps a prepared scheduler once for every process, unless it splits batches: the
    stages would be as many times too short.  Leave a `StageSchedule` out of ``prepare`` there and step it yourself
    where ``accelerator.sync_gradients``.
    """

    def __init__(
        self, accelerator: Any, optimizer: Any, schedule: Any = None, *, adopt: bool = True, log_to: Any = None
    ) -> None:
        several = accelerator.num_processes > 1 and getattr(schedule, "step_with_optimizer", False)
        if several and not schedule.split_batches and stages_in(schedule) is not None:
            raise ValueError(
                f"accelerate steps a prepared scheduler {accelerator.num_processes} times per step, and StageSchedule "
                "counts steps: leave it out of prepare() and step it where accelerator.sync_gradients"
            )
        self.accelerator, self.adopt = accelerator, adopt
        self.following = Following(optimizer, [schedule], log_to)

    def epoch_end(self) -> dict[str, float]:
        """Take a record and send it to accelerate's trackers.

        Returns
        -------
        dict
            "structure/w_hat/group_sparsity" and so on.
        """
        scalars = self.following.scalars()
        self.accelerator.log(scalars)
        return scalars

    def save_structured(self, model: Any, path: Any) -> None:
        """Save the model's state_dict at w_hat with ``accelerator.save``; ``load_state`` goes on from w all the same.

        Parameters
        ----------
        model : torch.nn.Module
            Prepared or not.
        path : path
            The file.
        """
        with self.following.structured_state(self.accelerator.unwrap_model(model)) as state:
            self.accelerator.save(dict(state), path)

    def train_end(self) -> None:
        """Make w_hat the weights."""
        if self.adopt:
            self.following.adopt()
