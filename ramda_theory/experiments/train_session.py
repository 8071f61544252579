"""A training run on the digits between epochs, which saves and loads as one."""

from __future__ import annotations

import io
import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ramda_theory.experiments.train_settings import TrainResult, TrainSettings, tuple_or
from ramda_theory.files import write_atomically
from ramda_theory.regularizers import GroupLasso
from ramda_theory.workloads.digits import Split, digit_splits, network

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from ramda_theory.model import SparsityTarget
    from ramda_theory.optim import StageSchedule, StructureTracker


def build(settings: TrainSettings, model: nn.Module, steps_per_epoch: int) -> tuple[Optimizer, StageSchedule]:
    """The optimizer and its stages."""
    import torch

    from ramda_theory import optim

    psi = GroupLasso(settings.weight) if settings.weight > 0 else None
    params = model.parameters() if psi is None else optim.structured_param_groups(model, psi)
    averaged: dict[str, Any] = {"lr": settings.lr, "momentum": settings.momentum}
    makers: dict[str, Any] = {
        "RAMDA": lambda: optim.RAMDA(params, **averaged),
        "MADGRAD": lambda: optim.RAMDA(params, **averaged),
        "RMDA": lambda: optim.RMDA(params, **averaged),
        "MDA": lambda: optim.RMDA(params, **averaged),
        "ProxSGD": lambda: optim.ProxSGD(params, **averaged),
        "MSGD": lambda: optim.ProxSGD(params, **averaged),
        "ProxAdamW": lambda: optim.ProxAdamW(params, lr=settings.lr),
        "AdamW": lambda: torch.optim.AdamW(params, lr=settings.lr, weight_decay=0.0),
    }
    optimizer = makers[settings.optimizer]()
    schedule = optim.StageSchedule(
        optimizer, settings.milestones or (), settings.gamma, settings.memory, steps_per_epoch=steps_per_epoch
    )
    return optimizer, schedule


class Session:
    """A training run between epochs: model, optimizer, schedule, tracker and history, which save and load together."""

    def __init__(self, settings: TrainSettings) -> None:
        from ramda_theory.model import SparsityTarget
        from ramda_theory.optim import StructureTracker

        self.settings = settings
        self.data = digit_splits()
        self.model = network(settings.model, settings.seed)
        samples = len(self.data["train"].digits)
        if settings.batch > samples:
            raise ValueError(f"batch must be at most the {samples} training samples, got {settings.batch}")
        self.steps_per_epoch = samples // settings.batch
        self.optimizer, self.schedule = build(settings, self.model, self.steps_per_epoch)
        self.target: SparsityTarget | None = None
        if settings.target_sparsity is not None:
            steps = settings.epochs * self.steps_per_epoch
            self.target = SparsityTarget(self.optimizer, settings.target_sparsity, steps=steps)
        self.tracker: StructureTracker | None = None
        if settings.weight > 0:
            self.tracker = StructureTracker(self.optimizer, unit="epoch")
        self.history: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.whole = True
        """False while an epoch is under way: its state must not be saved."""

    def epoch(self) -> None:
        """One pass over the shuffled training samples; the last partial batch is dropped."""
        from torch.nn.functional import cross_entropy

        self.whole = False
        settings, split, number = self.settings, self.data["train"], len(self.history) + 1
        order = np.random.default_rng((settings.seed, number)).permutation(len(split.digits))
        loss_sum, clock = 0.0, time.perf_counter()
        self.model.train()
        for step in range(self.steps_per_epoch):
            rows = order[step * settings.batch : (step + 1) * settings.batch]
            self.optimizer.zero_grad(set_to_none=True)
            loss = cross_entropy(self.model(split.images[rows]), split.digits[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            if self.target is not None:
                self.target.step()
            if step < self.steps_per_epoch - 1:
                self.schedule.step()
            loss_sum += float(loss.detach())
        self.seconds += time.perf_counter() - clock
        row: dict[str, Any] = {"epoch": number, "loss": loss_sum / self.steps_per_epoch}
        if not math.isfinite(row["loss"]):
            raise RuntimeError(f"the loss is {row['loss']} in epoch {number}: the learning rate is too large")
        row["accuracy"] = self.accuracy(self.data["validation"])
        with structured_point(self.optimizer):
            row["accuracy_hat"] = self.accuracy(self.data["validation"])
        row |= self.record_structure()
        row["seconds"] = self.seconds
        self.history.append(row)
        self.schedule.step()  # after the record: a restart sets w_hat to w
        self.whole = True

    def record_structure(self) -> dict[str, Any]:
        """Sparsity and flips of w and w_hat; None without a regularizer."""
        if self.tracker is None:
            return dict.fromkeys(("sparsity", "sparsity_hat", "flips", "flips_hat"))
        self.tracker.record()
        return {
            f"{quantity}{suffix}": values[-1].item()
            for suffix, point in (("", self.tracker.points[0]), ("_hat", self.tracker.points[-1]))
            for quantity, values in (
                ("sparsity", self.tracker.curve("group_sparsity", point)),
                ("flips", self.tracker.flips(point)),
            )
        }

    def accuracy(self, split: Split) -> float:
        """Share of right answers."""
        import torch

        self.model.eval()
        with torch.no_grad():
            return float((self.model(split.images).argmax(dim=1) == split.digits).double().mean())

    def summary(self) -> str:
        """The last epoch in a few words."""
        row = self.history[-1]
        sparsity = "" if row["sparsity_hat"] is None else f", group sparsity {row['sparsity_hat']:.1%}"
        return f"loss {row['loss']:.3f}, accuracy {row['accuracy_hat']:.1%}{sparsity}"

    def result(self) -> TrainResult:
        """The record, and the figures of the weights handed out: w_hat where the optimizer averages."""
        from ramda_theory.optim import structure_report

        steps = len(self.history) * self.steps_per_epoch
        final: dict[str, Any] = {"milliseconds": 1e3 * self.seconds / max(steps, 1)}
        layers = ""
        with structured_point(self.optimizer):
            for name in ("validation", "test"):
                final[name] = self.accuracy(self.data[name])
        if self.tracker is not None:
            report = structure_report(self.optimizer, ranks=False)
            total = report.total(self.tracker.points[-1])
            found = self.tracker.identification()
            final |= {"sparsity": total.group_sparsity, "zero_groups": total.zero_groups, "groups": total.groups}
            final |= {"identification_epoch": found.time, "held_for": found.held_for}
            if self.target is not None:
                final["weight"] = self.target.weights[0]
            layers = report.table()
        return TrainResult(self.settings, self.history, final, layers)

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write everything to one file, atomically."""
        import torch

        state = {
            "settings": asdict(self.settings),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "tracker": None if self.tracker is None else self.tracker.state_dict(),
            "history": self.history,
            "seconds": self.seconds,
        }
        if self.target is not None:
            state["target"] = self.target.state_dict()
        whole = io.BytesIO()  # torch turns what fails in writing, such as a full disk, into an error of its own
        torch.save(state, whole)
        write_atomically(path, lambda file: file.write(whole.getbuffer()))

    def load(self, path: Path) -> None:
        """Read what `save` wrote; the settings must agree but for more epochs."""
        import torch

        own = asdict(self.settings)
        try:
            state = torch.load(path, weights_only=True)
            saved = {name: state["settings"][name] for name in own if name != "target_sparsity"}
            saved["target_sparsity"] = state["settings"].get("target_sparsity")  # older runs had none
            model, optimizer, schedule, tracker = (state[key] for key in ("model", "optimizer", "schedule", "tracker"))
            history, seconds, count = list(state["history"]), float(state["seconds"]), int(schedule["count"])
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            raise
        except KeyError as error:
            raise ValueError(
                f"{path} is not a checkpoint of ramda-theory train, or one of another version: it lacks {error}"
            ) from error
        except Exception as error:  # what is damaged fails in the unpickler, anywhere and with anything
            raise ValueError(f"{path} is not a checkpoint of ramda-theory train ({type(error).__name__})") from error
        for item in fields(self.settings):
            if item.name != "epochs" and tuple_or(saved[item.name]) != tuple_or(own[item.name]):
                advice = ""
                if item.name == "milestones":  # left out, they depend on the epochs
                    epochs = " ".join(map(str, saved["milestones"]))
                    advice = f"; give it its own with --milestones{' ' * bool(epochs)}{epochs}"
                raise ValueError(
                    f"{path} is of another run: its {item.name} is {saved[item.name]!r}, not {own[item.name]!r}{advice}"
                )
        if len(history) > self.settings.epochs:
            raise ValueError(
                f"epochs must be at least the {len(history)} that {path} holds, got {self.settings.epochs}"
            )
        if count != len(history) * self.steps_per_epoch:
            raise ValueError(
                f"the parts of {path} disagree: {count} steps were scheduled, but {len(history)} epochs "
                f"of {self.steps_per_epoch} steps recorded"
            )
        try:
            self.model.load_state_dict(model)
            self.optimizer.load_state_dict(optimizer)
            self.schedule.load_state_dict(schedule)
            if self.tracker is not None:
                self.tracker.load_state_dict(tracker)
            if self.target is not None:
                self.target.load_state_dict(state["target"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ValueError(f"{path} does not fit this run: {' '.join(str(error).split())}") from error
        if self.tracker is not None and len(self.tracker) != len(history):
            raise ValueError(
                f"the parts of {path} disagree: it has {len(self.tracker)} records of the structure, "
                f"but {len(history)} epochs"
            )
        self.history, self.seconds = history, seconds


def structured_point(optimizer: Optimizer) -> AbstractContextManager[Any]:
    """The optimizer's own `structured_point`; nothing for torch's optimizers."""
    context: AbstractContextManager[Any] = getattr(optimizer, "structured_point", nullcontext)()
    return context
