"""`StructureCallback` for transformers' ``Trainer``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ramda_theory.extras import needs
from ramda_theory.integrations.structure import Following

with needs("trainers"):
    from transformers import TrainerCallback


class StructureCallback(TrainerCallback):  # type: ignore[misc]
    """Logs structure, saves w_hat beside each checkpoint, and makes it the model at the end.

    Give the trainer the optimizer and, for restarts at epochs, a `StageSchedule` with ``steps_per_epoch``; both are
    saved in its checkpoints, and a resumed run goes on to the same bits:
    ``Trainer(..., optimizers=(optimizer, schedule), callbacks=[StructureCallback()])``.

    Parameters
    ----------
    adopt : bool
        Make w_hat the weights when training ends, so that ``trainer.save_model()`` saves exact zeros.  Checkpoints are
        written before and hold w, from which training can be resumed.
    save_structured : bool
        Write the model at w_hat into the folder ``structured`` of every checkpoint.
    log_to : optional
        As in `StructureTracker.log_to`; with the numbers of every epoch.

    Raises
    ------
    TypeError
        When training begins, if the optimizer is not one of ``ramda_theory.optim``.

    Notes
    -----
    The entries of ``trainer.state.log_history`` that hold a loss hold "structure/w_hat/group_sparsity" and so on of the
    moment.  With ``load_best_model_at_end`` the weights at the end are not those of the optimizer: they are left alone,
    with a warning, and the best checkpoint's folder ``structured`` has its w_hat.
    """

    def __init__(self, *, adopt: bool = True, save_structured: bool = True, log_to: Any = None) -> None:
        self.adopt, self.save_structured, self.log_to = adopt, save_structured, log_to
        self.following: Following | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find the optimizer."""
        self.following = Following(kwargs["optimizer"], [kwargs.get("lr_scheduler")], self.log_to)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look at the first gradients."""
        if self.following is not None and state.global_step == 0:
            self.following.look_at_gradients()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Add the structure to an entry with a loss."""
        if self.following is not None and logs is not None and "loss" in logs:
            scalars = self.following.scalars()
            logs.update(scalars)
            if state.log_history:
                state.log_history[-1].update(scalars)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write w_hat beside the checkpoint."""
        model = kwargs.get("model")
        if self.following is None or not self.save_structured or not state.is_world_process_zero:
            return
        if model is not None and hasattr(model, "save_pretrained"):
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}" / "structured"
            with self.following.structured_state(model):
                model.save_pretrained(folder)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Make w_hat the weights."""
        if self.following is None or not self.adopt:
            return
        if args.load_best_model_at_end:
            warnings.warn(
                "load_best_model_at_end: the model holds the best checkpoint's w, not the optimizer's; its w_hat is in "
                f"the folder 'structured' of {state.best_model_checkpoint}",
                stacklevel=2,
            )
            return
        self.following.adopt()
