"""Train a network on the digits with any of the optimizers, and see its structure settle."""

from __future__ import annotations

import io
import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ramda_theory.arrays import integers, real
from ramda_theory.drawing.provenance import record_figure
from ramda_theory.files import write_atomically
from ramda_theory.regularizers import GroupLasso
from ramda_theory.tables import aligned
from ramda_theory.workloads.digits import MODELS, Split, digit_splits, network

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from ramda_theory.model import SparsityTarget
    from ramda_theory.optim import StageSchedule, StructureTracker

OPTIMIZERS = {
    "RAMDA": 1e-2,
    "RMDA": 0.3,
    "ProxSGD": 0.5,
    "ProxAdamW": 1e-3,
    "MADGRAD": 1e-2,
    "MDA": 0.3,
    "MSGD": 0.5,
    "AdamW": 1e-3,
}
"""The optimizers and their default learning rates; the last four have no regularizer."""

UNREGULARIZED = ("MADGRAD", "MDA", "MSGD", "AdamW")


@dataclass(frozen=True)
class TrainSettings:
    """What a training run is.

    Parameters
    ----------
    optimizer : str
        One of `OPTIMIZERS`.
    model : {"cnn", "mlp"}
    weight : float
        lambda of the group LASSO over input channels and input features, >= 0; 0 for the unregularized optimizers.
    lr : float, optional
        The optimizer's default if None.
    momentum : float
        In [0, 1); not used by ProxAdamW and AdamW.
    epochs, batch : int
    milestones : tuple of int, optional
        Epochs after which a stage begins; 40, 60 and 80 % of the epochs if None.
    gamma : float
        Decay of the learning rate at a milestone.
    memory : int
        Steps' worth of gradient averages that restarts keep (RAMDA, RMDA, MADGRAD, MDA).
    seed : int
        Of the initial weights and the batches.
    target_sparsity : float, optional
        Weighted group sparsity in (0, 1) to which `ramda_theory.model.SparsityTarget` steers the weight, which the run
        begins with.
    """

    optimizer: str = "RAMDA"
    model: str = "cnn"
    weight: float = 1e-3
    lr: Any = None
    momentum: float = 0.9
    epochs: int = 100
    batch: int = 64
    milestones: tuple[int, ...] | None = None
    gamma: float = 0.1
    memory: int = 0
    seed: int = 0
    target_sparsity: Any = None

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")
        if self.model not in MODELS:
            raise ValueError(f"model must be one of {', '.join(MODELS)}, got {self.model!r}")
        weight = 0.0 if self.optimizer in UNREGULARIZED else real("weight", self.weight, minimum=0.0)
        lr = OPTIMIZERS[self.optimizer] if self.lr is None else real("lr", self.lr, minimum=0.0, strict=True)
        for name, least in (("epochs", 1), ("batch", 1), ("memory", 0), ("seed", 0)):
            if integers(name, getattr(self, name))[0] < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)!r}")
        if self.target_sparsity is not None and not weight:
            raise ValueError(
                f"target_sparsity needs an optimizer with a weight above 0, got {self.optimizer}, {weight}"
            )
        default = {max(1, round(share * self.epochs)) for share in (0.4, 0.6, 0.8)}
        milestones = tuple(sorted(default)) if self.milestones is None else integers("milestones", self.milestones)
        for name, value in (("weight", weight), ("lr", lr), ("milestones", milestones)):
            object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """Short, unique among runs that differ in optimizer, model, weight and seed."""
        return f"{self.optimizer}-{self.model}-{self.weight:g}-seed{self.seed}"


@dataclass
class TrainResult:
    """What a training run leaves.

    Attributes
    ----------
    settings : TrainSettings
    history : list of dict
        One per epoch: "epoch", "loss" (training, mean over the epoch), "accuracy" (validation, of w), "accuracy_hat"
        (of w_hat), "sparsity", "sparsity_hat" (weighted group sparsity, None without a regularizer), "flips",
        "flips_hat" (groups that changed since the epoch before), "seconds" (training, so far).
    final : dict
        "validation" and "test" accuracy, weighted group "sparsity", "zero_groups", "groups" of the weights handed out
        (w_hat where the optimizer averages), "milliseconds" per training step, "identification_epoch": the epoch
        since which w_hat's structure is what it is at the end, and "held_for".
    layers : str
        The structure of every layer at the end, as a table.
    """

    settings: TrainSettings
    history: list[dict[str, Any]] = field(default_factory=list)
    final: dict[str, Any] = field(default_factory=dict)
    layers: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as under "data" in ``train.json``."""
        return {"settings": asdict(self.settings), "history": self.history, "final": self.final}


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


def train(
    settings: TrainSettings,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    checkpoint_every: int = 10,
    command: str | None = None,
) -> TrainResult:
    """Train, and record loss, accuracy and structure after every epoch.

    Parameters
    ----------
    settings : TrainSettings
    out : path, optional
        Folder for ``checkpoint.pt``, ``train.json`` and ``train.png``.
    resume : bool
        Go on from the checkpoint in ``out``: to the same weights, bit for bit, as without the interruption.
    progress : bool
        Show a bar with loss, accuracy and sparsity.
    checkpoint_every : int
        Epochs between checkpoints; there is one at the end and, if possible, when the run is interrupted.
    command : str, optional
        What ``train.json`` names as the command that made it.

    Returns
    -------
    TrainResult

    Raises
    ------
    ValueError
        If there is nothing to resume, the checkpoint is of other settings, damaged or of another version, or, without
        ``resume``, ``out`` holds a run already.
    OSError
        If the disk is full, say; the checkpoint before is whole.
    RuntimeError
        If a gradient is not finite.
    """
    path = None if out is None else Path(out) / "checkpoint.pt"
    if path is not None and path.exists() and not resume:
        raise ValueError(f"{path.parent} holds a run already: go on from it with --resume, or give another --out")
    session = Session(settings)
    if resume:
        if path is None or not path.exists():
            raise ValueError(f"nothing to resume: there is no checkpoint {path}")
        session.load(path)
    bar = None
    if progress:
        from tqdm import tqdm

        bar = tqdm(total=settings.epochs, initial=len(session.history), desc=settings.name, unit="epoch", leave=False)
    saved = len(session.history)
    try:
        while len(session.history) < settings.epochs:
            session.epoch()
            if bar is not None:
                bar.update()
                bar.set_postfix_str(session.summary())
            if path is not None and len(session.history) % checkpoint_every == 0:
                session.save(path)
                saved = len(session.history)
    finally:
        if bar is not None:
            bar.close()
        if path is not None and session.whole and len(session.history) > saved:
            session.save(path)
    result = session.result()
    if out is not None:
        from ramda_theory.experiments.train_figure import plot_training

        record_figure(out, "train", command=command, seeds=[settings.seed], data=result.to_dict())
        plot_training(result, Path(out) / "train")
    return result


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


def tuple_or(value: Any) -> Any:
    """Lists as tuples, everything else as it is."""
    return tuple(value) if isinstance(value, list) else value


def structured_point(optimizer: Optimizer) -> AbstractContextManager[Any]:
    """The optimizer's own `structured_point`; nothing for torch's optimizers."""
    context: AbstractContextManager[Any] = getattr(optimizer, "structured_point", nullcontext)()
    return context


def table(result: TrainResult) -> str:
    """The end of the run in a few lines."""
    final = result.final
    rows = [
        ("", "value"),
        ("validation accuracy", f"{final['validation']:.2%}"),
        ("test accuracy", f"{final['test']:.2%}"),
    ]
    if "sparsity" in final:
        rows += [
            ("weighted group sparsity", f"{final['sparsity']:.2%}"),
            ("zero groups", f"{final['zero_groups']} of {final['groups']}"),
            ("structure settled in epoch", f"{final['identification_epoch']} (held for {final['held_for']})"),
        ]
    rows.append(("ms per step", f"{final['milliseconds']:.2f}"))
    return aligned(rows) + ("\n\n" + result.layers if result.layers else "")


def write_compact(settings: TrainSettings, out: Path) -> str:
    """Write the small model of a finished run to ``compact.safetensors``, its table to ``compact.txt``; the table.

    `load_compact` with `network` as the factory reads it.

    Raises
    ------
    ValueError
        If ``out`` holds no checkpoint of these settings.
    """
    from ramda_theory.model import compact

    session = Session(settings)
    session.load(out / "checkpoint.pt")
    images = session.data["test"].images
    with structured_point(session.optimizer):
        small = compact(session.model, images[:2])
        text = f"{small.table()}\nlargest relative difference in float64: {small.check(images):.1e}"
    small.save(out / "compact.safetensors")
    write_atomically(out / "compact.txt", lambda file: file.write(f"{text}\n".encode()))
    return f"{text}\nwrote {out / 'compact.safetensors'} and {out / 'compact.txt'}"
