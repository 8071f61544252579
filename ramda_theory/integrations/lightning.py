"""`StructureCallback` for Lightning's ``Trainer``."""

from __future__ import annotations

from typing import Any

from ramda_theory.extras import needs
from ramda_theory.integrations.structure import Following, stages_in

with needs("trainers"):
    from lightning.pytorch.callbacks import Callback


class StructureCallback(Callback):  # type: ignore[misc]
    """Logs structure at epochs, saves w_hat in checkpoints, and makes it the model at the end.

    For restarts at epochs give Lightning a `StageSchedule` that it steps after every step:
    ``return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}`` from
    ``configure_optimizers``, with milestones in epochs by ``steps_per_epoch``.

    Parameters
    ----------
    adopt : bool
        Make w_hat the weights when training ends.  Checkpoints are written before and hold w, from which training can
        be resumed; w_hat is beside it under "structured_state_dict".
    save_structured : bool
        Whether checkpoints hold "structured_state_dict".
    log_to : optional
        As in `StructureTracker.log_to`.

    Raises
    ------
    TypeError, ValueError
        When training begins, if the (one) optimizer is not of ``ramda_theory.optim``, or its `StageSchedule` would be
        stepped at anything but every step.
    """

    def __init__(self, *, adopt: bool = True, save_structured: bool = True, log_to: Any = None) -> None:
        self.adopt, self.save_structured, self.log_to = adopt, save_structured, log_to
        self.following: Following | None = None
        self._saved: dict[str, Any] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Find the optimizer, and hold the schedule's settings against what it needs."""
        if len(trainer.optimizers) != 1:
            raise ValueError(f"StructureCallback follows one optimizer, got {len(trainer.optimizers)}")
        for config in trainer.lr_scheduler_configs:
            if stages_in(config.scheduler) is not None and (config.interval, config.frequency) != ("step", 1):
                raise ValueError(
                    "StageSchedule counts steps: give Lightning {'scheduler': schedule, 'interval': 'step', "
                    f"'frequency': 1}}, got interval {config.interval!r} and frequency {config.frequency}"
                )
        schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
        self.following = Following(trainer.optimizers[0], schedules, None)
        tracker = self.following.tracker
        if tracker is not None:
            if self._saved is not None:
                tracker.load_state_dict(self._saved)
            if self.log_to is not None:
                tracker.log_to(self.log_to)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Look at the first gradients."""
        if self.following is not None and trainer.global_step == 0:
            self.following.look_at_gradients()

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the structure."""
        if self.following is not None:
            pl_module.log_dict(self.following.scalars())

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Put w_hat into the checkpoint."""
        if self.following is not None and self.save_structured:
            with self.following.structured_state(pl_module) as state:
                checkpoint["structured_state_dict"] = {key: value.detach().clone() for key, value in state.items()}

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Make w_hat the weights."""
        if self.following is not None and self.adopt:
            self.following.adopt()

    def state_dict(self) -> dict[str, Any]:
        """The tracker's records.

        Returns
        -------
        dict
        """
        tracker = None if self.following is None else self.following.tracker
        return {} if tracker is None else {"tracker": tracker.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them over when training begins.

        Parameters
        ----------
        state_dict : dict
            What `state_dict` gave.
        """
        self._saved = state_dict.get("tracker")
