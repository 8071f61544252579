"""Train any workload with any optimizer, on one process or many, and see its structure settle."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramda_theory.arrays import integers, real
from ramda_theory.experiments.entrants import find_entrant
from ramda_theory.experiments.loader import Loader
from ramda_theory.experiments.logs import KINDS, log
from ramda_theory.experiments.processes import Processes, join
from ramda_theory.experiments.train import structured_point, tuple_or
from ramda_theory.files import write_atomically
from ramda_theory.tables import aligned
from ramda_theory.workloads.registry import find_workload
from ramda_theory.workloads.workload import Settings, Workload

if TYPE_CHECKING:
    from ramda_theory.model import SparsityTarget
    from ramda_theory.optim import StructureTracker

LEVELS = {"group_sparsity": "group sparsity", "low_rank_level": "low-rank level"}
"""What tells how much structure there is: the first that a workload's regularizer has."""
AMP = ("off", "bf16")


@dataclass(frozen=True)
class Plan:
    """What a run is: two runs of one plan give the same numbers, on one device and with one number of processes.

    Parameters
    ----------
    workload : str
        A name, or the path of a file; see `find_workload`.
    size : {"scaled", "paper"}
    optimizer : str
        A key of `ENTRANTS`.
    lr, averaging, weight : float, optional
        The workload's settings for the optimizer where None, else the optimizer's own.
    epochs, batch : int, optional
        The workload's where None; ``batch`` counts the samples of all processes together.
    milestones : tuple of int, optional
        Epochs after which a stage begins; the workload's where None, in proportion to ``epochs``.
    gamma : float, optional
    memory : int
        Steps' worth of gradient averages that restarts keep.
    seed : int
        Of the initial weights, the order of the samples, their augmentation and dropout.
    amp : {"off", "bf16"}
        Whether the forward pass runs under autocast; weights and state stay float32.
    limit_batches : int, optional
        At most so many batches of every pass over data, to try things out.
    target_sparsity : float, optional
        Weighted group sparsity in (0, 1) to which `ramda_theory.model.SparsityTarget` steers the weight, which the run
        begins with.
    """

    workload: str
    size: str = "scaled"
    optimizer: str = "RAMDA"
    lr: Any = None
    averaging: Any = None
    weight: Any = None
    epochs: Any = None
    batch: Any = None
    milestones: Any = None
    gamma: Any = None
    memory: int = 0
    seed: int = 0
    amp: str = "off"
    limit_batches: int | None = None
    target_sparsity: Any = None

    def settled(self, workload: Workload) -> Plan:
        """The plan with nothing left open.

        Raises
        ------
        ValueError
            Naming what is out of its range.
        """
        entrant = find_entrant(self.optimizer)
        known = workload.settings.get(self.optimizer, Settings(entrant.lr))
        epochs = workload.epochs if self.epochs is None else self.epochs
        batch = workload.batch if self.batch is None else self.batch
        for name, value, least in (("epochs", epochs, 1), ("batch", batch, 1), ("seed", self.seed, 0)):
            if integers(name, value)[0] < least:
                raise ValueError(f"{name} must be at least {least}, got {value!r}")
        if self.amp not in AMP:
            raise ValueError(f"amp must be one of {', '.join(AMP)}, got {self.amp!r}")
        if self.limit_batches is not None and integers("limit_batches", self.limit_batches)[0] < 1:
            raise ValueError(f"limit_batches must be at least 1, got {self.limit_batches!r}")
        if self.milestones is None:
            scaled = (round(epoch * epochs / workload.epochs) for epoch in workload.milestones)
            milestones = tuple(sorted({max(1, epoch) for epoch in scaled if epoch < epochs}))
        else:
            milestones = integers("milestones", self.milestones)
        own = Settings(
            known.lr if self.lr is None else self.lr,
            known.averaging if self.averaging is None else self.averaging,
            (known.weight if self.weight is None else self.weight) if entrant.structured else 0.0,
        )
        if self.target_sparsity is not None and not own.weight:
            raise ValueError(f"target_sparsity needs an optimizer with a weight above 0, got {self.optimizer}")
        gamma = workload.gamma if self.gamma is None else real("gamma", self.gamma, minimum=0.0, strict=True)
        return replace(
            self,
            **asdict(own),
            epochs=epochs,
            batch=batch,
            milestones=milestones,
            gamma=gamma,
        )

    @property
    def name(self) -> str:
        """Short, unique among runs that differ in optimizer, weight, lr and seed."""
        stem = Path(self.workload).stem if self.workload.endswith(".py") else self.workload
        lr = "" if self.lr is None else f"-lr{self.lr:g}"
        weight = "" if self.weight is None else f"-{self.weight:g}"
        return f"{stem}-{self.optimizer}{lr}{weight}-seed{self.seed}"


@dataclass
class WorkloadResult:
    """What a run leaves.

    Attributes
    ----------
    plan : Plan
    metric, level : str
        Names of the metric and of the structure's level (None without a regularizer).
    history : list of dict
        One per epoch: "epoch", "loss" (training), "metric" (validation, of w), "metric_hat" (of w_hat), "level",
        "level_hat", "flips", "flips_hat" (groups or ranks that changed), "seconds" (training, so far),
        "evaluating" (seconds of evaluation, so far) and "waiting" (share of the training time spent waiting for data).
    final : dict
        Of the weights handed out (w_hat where the optimizer averages): "validation", "test", "level", and of w
        "validation_w", "test_w", "level_w"; "milliseconds" per step, "waiting" and "identification_epoch".
    layers : str
        The structure of every layer at the end, as a table.
    """

    plan: Plan
    metric: str
    level: str | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    final: dict[str, Any] = field(default_factory=dict)
    layers: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as under "data" in ``train.json``."""
        return {
            "plan": asdict(self.plan),
            "metric": self.metric,
            "level": self.level,
            "history": self.history,
            "final": self.final,
        }


def train_workload(
    plan: Plan,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    shard: bool = False,
    workers: int | None = None,
    log_to: tuple[str, ...] = (),
    progress: bool = False,
    checkpoint_seconds: float = 60.0,
    command: str | None = None,
    processes: Processes | None = None,
) -> WorkloadResult:
    """Train, and record loss, metric and structure after every epoch.

    Parameters
    ----------
    plan : Plan
    data : path, optional
        Folder of the published data; without one the data that packages install are taken.
    out : path, optional
        Folder for ``checkpoint.pt``, ``train.json``, ``train.png`` and logs.
    resume : bool
        Go on from the checkpoint in ``out``, to the same bits; more epochs than the run had are taken.
    device : {"auto", "cpu", "cuda"}
    shard : bool
        Cut parameters and state among the processes (FSDP2).
    workers : int, optional
        Threads that prepare batches; by default none for data in memory, else as many as the machine has processors,
        at most 16.
    log_to : tuple of {"csv", "tensorboard"}
    progress : bool
        Show a bar with metric and structure.
    checkpoint_seconds : float
        A checkpoint is written after an epoch if the last is older than this, and at the end.
    command : str, optional
        What ``train.json`` names as the command that made it.
    processes : Processes, optional
        Those to train with; by default those that ``torchrun`` started.

    Returns
    -------
    WorkloadResult

    Raises
    ------
    ValueError
        If the plan, the data or the checkpoint do not fit, or ``out`` holds a run already and ``resume`` is not given.
    OSError
        If a file cannot be written.
    RuntimeError
        If the loss is not finite.
    """
    for kind in log_to:
        if kind not in KINDS:
            raise ValueError(f"log_to must be among {', '.join(KINDS)}, got {kind!r}")
    folder = None if out is None else Path(out)
    path = None if folder is None else folder / "checkpoint.pt"
    if path is not None and path.exists() and not resume:
        raise ValueError(f"{folder} holds a run already: go on from it with --resume, or give another --out")
    if resume and (path is None or not path.exists()):
        raise ValueError(f"nothing to resume: there is no checkpoint {path}")
    workload = find_workload(plan.workload, plan.size)
    state = read_checkpoint(path) if resume and path is not None else None
    if state is not None and plan.milestones is None:
        plan = replace(plan, milestones=tuple_or(state["plan"]["milestones"]))
    run = Run(plan.settled(workload), workload, data, processes or join(device, shard), workers)
    if state is not None and path is not None:
        run.load(state, path)
    bar = None
    if progress and run.processes.first:
        from tqdm import tqdm

        total, done = run.plan.epochs * run.steps, len(run.history) * run.steps
        bar = tqdm(total=total, initial=done, desc=run.plan.name, unit="step", leave=False)
    saved, clock = len(run.history), time.monotonic()
    try:
        while len(run.history) < run.plan.epochs:
            for _ in run.epoch():
                if bar is not None:
                    bar.update()
            if bar is not None:
                bar.set_postfix_str(run.summary())
            if folder is not None and log_to and run.processes.first:
                log(log_to, folder, run.history)
            old = run.processes.total(float(time.monotonic() - clock >= checkpoint_seconds))[0] > 0
            if path is not None and (old or len(run.history) == run.plan.epochs):
                run.save(path)
                saved, clock = len(run.history), time.monotonic()
    finally:
        if bar is not None:
            bar.close()
        if path is not None and run.whole and len(run.history) > saved and run.processes.world == 1:
            run.save(path)
    result = run.result()
    if folder is not None and run.processes.first:
        from ramda_theory.drawing.provenance import record_figure
        from ramda_theory.experiments.workload_figure import plot_run

        record_figure(folder, "train", command=command, seeds=[plan.seed], data=result.to_dict())
        plot_run(result, folder / "train")
    return result


class Run:
    """A run between epochs: model, optimizer, stages, tracker and history, which save and load together.

    Parameters
    ----------
    plan : Plan
        Settled.
    workload : Workload
    data : path, optional
    processes : Processes
    workers : int, optional
    """

    def __init__(
        self,
        plan: Plan,
        workload: Workload,
        data: str | Path | None,
        processes: Processes,
        workers: int | None = None,
    ) -> None:
        import os

        import torch

        from ramda_theory.model import SparsityTarget
        from ramda_theory.optim import StageSchedule, StructureTracker

        self.plan, self.workload, self.processes = plan, workload, processes
        splits = workload.splits(None if data is None else Path(data))
        batch: int = plan.batch
        if batch % processes.world:
            raise ValueError(f"batch must be divisible by the {processes.world} processes, got {batch}")
        slow = any(examples.slow for examples in splits.values())
        threads = (min(16, os.cpu_count() or 1) if slow else 0) if workers is None else workers
        self.loaders = {
            name: Loader(
                examples,
                batch,
                plan.seed,
                processes.device,
                threads,
                processes.rank,
                processes.world,
                plan.limit_batches,
            )
            for name, examples in splits.items()
        }
        self.steps = self.loaders["train"].steps
        if not self.steps:
            raise ValueError(f"batch must be at most the {len(splits['train'])} training samples, got {batch}")
        with self.seeded(0, everywhere=True):
            self.model = workload.model(splits).to(processes.device)
        self.called = processes.shared(self.model)
        entrant = find_entrant(plan.optimizer)
        params: Any = self.model.parameters()
        if entrant.structured and plan.weight:
            params = workload.groups(self.model, workload.regularizer(plan.weight))
        settings = Settings(plan.lr, plan.averaging, plan.weight)
        milestones: tuple[int, ...] = plan.milestones
        first = (milestones[0] if milestones else plan.epochs) * self.steps
        self.optimizer = entrant.build(params, settings, first)
        self.schedule = StageSchedule(
            self.optimizer,
            milestones,
            plan.gamma,
            plan.memory,
            steps_per_epoch=self.steps,
        )
        self.target: SparsityTarget | None = None
        if plan.target_sparsity is not None:
            self.target = SparsityTarget(self.optimizer, plan.target_sparsity)
        self.tracker: StructureTracker | None = None
        if any(group.get("regularizer") is not None for group in self.optimizer.param_groups):
            self.tracker = StructureTracker(self.optimizer, unit="epoch")
        self.history: list[dict[str, Any]] = []
        self.seconds = self.evaluating = self.waited = 0.0
        self.whole = True
        """False while an epoch is under way: its state must not be saved."""
        self.float_type = torch.bfloat16 if plan.amp == "bf16" else None

    @contextmanager
    def seeded(self, number: int, everywhere: bool = False) -> Iterator[None]:
        """torch's generators for one epoch (0: the initial weights), the caller's own put back afterwards."""
        import torch

        device = self.processes.device
        devices = [device] if device.type == "cuda" else []
        rank = 0 if everywhere else self.processes.rank
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.plan.seed * 1_000_003 + number * 1009 + rank)
            yield

    def autocast(self) -> Any:
        """The forward pass's context."""
        import torch

        if self.float_type is None:
            return nullcontext()
        return torch.autocast(self.processes.device.type, self.float_type)

    def epoch(self) -> Iterator[None]:
        """One pass over the training samples, step by step, then a row of the history."""
        import torch

        self.whole = False
        number, loader = len(self.history) + 1, self.loaders["train"]
        loader.waited, clock = 0.0, time.perf_counter()
        total = torch.zeros((), dtype=torch.float64, device=self.processes.device)
        self.model.train()
        self.reset()
        with self.seeded(number):
            for step, batch in enumerate(loader.epoch(number)):
                self.optimizer.zero_grad(set_to_none=True)
                with self.autocast():
                    loss = self.workload.loss(self.called, batch)
                loss.backward()  # type: ignore[no-untyped-call]
                if self.workload.clip is not None:
                    torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.workload.clip)
                self.optimizer.step()
                if self.target is not None:
                    self.target.step()
                if step < self.steps - 1:
                    self.schedule.step()
                total += loss.detach()
                yield
        mean = self.processes.total(float(total))[0] / (self.steps * self.processes.world)
        seconds = time.perf_counter() - clock
        self.seconds += seconds
        self.waited += loader.waited
        row: dict[str, Any] = {"epoch": number, "loss": mean}
        if not math.isfinite(mean):
            raise RuntimeError(f"the loss is {mean} in epoch {number}: the learning rate is too large")
        clock = time.perf_counter()
        row["metric"] = self.evaluate("validation")
        with structured_point(self.optimizer):
            row["metric_hat"] = self.evaluate("validation")
        row |= self.record_structure()
        self.evaluating += time.perf_counter() - clock
        row |= {"seconds": self.seconds, "evaluating": self.evaluating, "waiting": loader.waited / seconds}
        self.history.append(row)
        self.schedule.step()  # after the record: a restart sets w_hat to w
        self.whole = True

    def reset(self) -> None:
        """Before a pass over data."""
        if self.workload.reset is not None:
            self.workload.reset(self.model)

    def evaluate(self, split: str) -> float:
        """The metric of a split."""
        import torch

        self.processes.align_buffers(self.model)
        self.model.eval()
        self.reset()
        total = torch.zeros((), dtype=torch.float64, device=self.processes.device)
        count = 0
        with self.seeded(-1), torch.no_grad(), self.autocast():
            for batch, counts in self.loaders[split].all():
                part, number = self.workload.score(self.model, batch)
                if counts:
                    total += part.double()
                    count += number
        self.reset()
        whole, samples = self.processes.total(float(total), count)
        return self.workload.display(whole / max(samples, 1))

    def record_structure(self) -> dict[str, Any]:
        """Level and flips of w and w_hat; None without a regularizer."""
        if self.tracker is None:
            return dict.fromkeys(("level", "level_hat", "flips", "flips_hat"))
        self.tracker.record()
        level = self.level or next(iter(LEVELS))
        return {
            f"{quantity}{suffix}": values[-1].item()
            for suffix, point in (("", self.tracker.points[0]), ("_hat", self.tracker.points[-1]))
            for quantity, values in (
                ("level", self.tracker.curve(level, point)),
                ("flips", self.tracker.flips(point)),
            )
        }

    @property
    def level(self) -> str | None:
        """Which of `LEVELS` the regularizer has."""
        if self.tracker is None or not len(self.tracker):
            return None
        found = (name for name in LEVELS if not math.isnan(self.tracker.curve(name)[-1]))
        return next(found, "entry_sparsity")

    def summary(self) -> str:
        """The last epoch in a few words."""
        row = self.history[-1]
        words = f"loss {row['loss']:.3f}, {self.workload.metric} {row['metric_hat']:.4g}"
        if row["level"] is not None and self.level is not None:
            words += f", {LEVELS.get(self.level, self.level)} w {row['level']:.1%}, w_hat {row['level_hat']:.1%}"
        return words

    def result(self) -> WorkloadResult:
        """The record, and the figures of w and of the weights handed out."""
        from ramda_theory.optim import structure_report

        steps = max(len(self.history) * self.steps, 1)
        final: dict[str, Any] = {name + "_w": self.evaluate(name) for name in ("validation", "test")}
        with structured_point(self.optimizer):
            final |= {name: self.evaluate(name) for name in ("validation", "test")}
        final |= {"milliseconds": 1e3 * self.seconds / steps, "waiting": self.waited / max(self.seconds, 1e-9)}
        final["evaluating"] = self.evaluating
        final["parameters"] = sum(parameter.numel() for parameter in self.model.parameters())
        layers, level = "", self.level
        if self.tracker is not None and level is not None:
            found = self.tracker.identification()
            final |= {"level": self.history[-1]["level_hat"], "level_w": self.history[-1]["level"]}
            final |= {"identification_epoch": found.time, "held_for": found.held_for}
            if self.target is not None:
                final["weight"] = next(weight for weight in self.target.weights if weight is not None)
            layers = structure_report(self.optimizer, ranks=level == "low_rank_level").table()
        return WorkloadResult(self.plan, self.workload.metric, level, self.history, final, layers)

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write everything to one file, atomically; every process must call."""
        import torch

        model, optimizer = self.processes.state(self.model, self.optimizer)
        if not self.processes.first:
            return
        state = {
            "plan": asdict(self.plan),
            "steps": self.steps,
            "model": model,
            "optimizer": optimizer,
            "schedule": self.schedule.state_dict(),
            "tracker": None if self.tracker is None else self.tracker.state_dict(),
            "history": self.history,
            "clocks": [self.seconds, self.evaluating, self.waited],
            "target": None if self.target is None else self.target.state_dict(),
        }
        whole = io.BytesIO()  # torch turns what fails in writing, such as a full disk, into an error of its own
        torch.save(state, whole)
        write_atomically(path, lambda file: file.write(whole.getbuffer()))

    def load(self, state: dict[str, Any], path: Path) -> None:
        """Take over what `save` wrote; the plans must agree but for more epochs."""
        own = asdict(self.plan)
        for item in fields(self.plan):
            saved = tuple_or(state["plan"].get(item.name))
            if item.name != "epochs" and saved != own[item.name]:
                raise ValueError(f"{path} is of another run: its {item.name} is {saved!r}, not {own[item.name]!r}")
        if state["steps"] != self.steps:
            raise ValueError(f"{path} is of other data: {state['steps']} steps per epoch, here {self.steps}")
        if len(state["history"]) > self.plan.epochs:
            done = len(state["history"])
            raise ValueError(f"epochs must be at least the {done} that {path} holds, got {self.plan.epochs}")
        try:
            self.processes.load(self.model, self.optimizer, (state["model"], state["optimizer"]))
            self.schedule.load_state_dict(state["schedule"])
            if self.tracker is not None:
                self.tracker.load_state_dict(state["tracker"])
            if self.target is not None:
                self.target.load_state_dict(state["target"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ValueError(f"{path} does not fit this run: {' '.join(str(error).split())}") from error
        self.history = list(state["history"])
        self.seconds, self.evaluating, self.waited = state["clocks"]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a checkpoint; ValueError if it is none."""
    import torch

    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        lacking = {"plan", "steps", "model", "optimizer", "schedule", "tracker", "history", "clocks"} - set(state)
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # what is damaged fails in the unpickler, anywhere and with anything
        raise ValueError(f"{path} is not a checkpoint of a workload ({type(error).__name__})") from error
    if lacking:
        raise ValueError(f"{path} is not a checkpoint of a workload: it lacks {', '.join(sorted(lacking))}")
    return state


def table(result: WorkloadResult) -> str:
    """The end of the run in a few lines."""
    final, plan = result.final, result.plan
    rows = [("", "handed out", "w")]
    rows += [
        (f"{name} {result.metric}", f"{final[name]:.4g}", f"{final[f'{name}_w']:.4g}")
        for name in ("validation", "test")
    ]
    if result.level is not None:
        rows.append((LEVELS.get(result.level, result.level), f"{final['level']:.2%}", f"{final['level_w']:.2%}"))
        held = f"{final['identification_epoch']} (held for {final['held_for']})"
        rows.append(("structure settled in epoch", held, ""))
    rows.append(("ms per step", f"{final['milliseconds']:.2f}", ""))
    rows.append(("waiting for data", f"{final['waiting']:.1%} of the training time", ""))
    rows.append(("evaluation", f"{final['evaluating']:.1f} s beside the training", ""))
    head = f"{plan.workload} ({plan.size}), {plan.optimizer}: {final['parameters']:,} weights, lr {plan.lr:g}"
    head += f", weight {plan.weight:g}, {plan.epochs} epochs"
    return "\n".join([head, "", aligned(rows), *(["", result.layers] if result.layers else [])])
