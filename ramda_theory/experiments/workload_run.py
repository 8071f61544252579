"""A run of a workload between epochs, which saves and loads as one."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramda_theory.experiments.checkpoint import load_states, read_states, saved_states, write_checkpoint
from ramda_theory.experiments.entrants import find_entrant
from ramda_theory.experiments.loader import Loader
from ramda_theory.experiments.processes import Processes
from ramda_theory.experiments.train_session import structured_point
from ramda_theory.experiments.train_settings import tuple_or
from ramda_theory.experiments.workload_plan import LEVELS, Plan, WorkloadResult
from ramda_theory.workloads.workload import Settings, Workload

if TYPE_CHECKING:
    from ramda_theory.model import SparsityTarget
    from ramda_theory.optim import StructureTracker


class TrainingDiverged(RuntimeError):
    """The loss of an epoch, or the metric after it, is not finite."""


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
            self.target = SparsityTarget(self.optimizer, plan.target_sparsity, steps=plan.epochs * self.steps)
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
            raise TrainingDiverged(f"the loss is {mean} in epoch {number}: the learning rate is too large")
        clock = time.perf_counter()
        row["metric"] = self.evaluate("validation")
        with structured_point(self.optimizer):
            row["metric_hat"] = self.evaluate("validation")
        if not math.isfinite(row["metric"] + row["metric_hat"]):
            found = f"{self.workload.metric} is {row['metric']}, of the weights handed out {row['metric_hat']}"
            raise TrainingDiverged(f"{found} after epoch {number}: the learning rate is too large")
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
        """Write everything, atomically; every process must call."""
        states = saved_states(path, self.model, self.optimizer, self.processes)
        if not self.processes.first:
            return
        state = {
            "plan": asdict(self.plan),
            "steps": self.steps,
            **states,
            "schedule": self.schedule.state_dict(),
            "tracker": None if self.tracker is None else self.tracker.state_dict(),
            "history": self.history,
            "clocks": [self.seconds, self.evaluating, self.waited],
            "target": None if self.target is None else self.target.state_dict(),
        }
        write_checkpoint(path, state)

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
        states = read_states(state, path, self.model, self.optimizer, self.processes)
        try:
            distribute = self.processes.shard and "pieces" not in state
            load_states(self.model, self.optimizer, states, distribute)
            self.schedule.load_state_dict(state["schedule"])
            if self.tracker is not None:
                self.tracker.load_state_dict(state["tracker"])
            if self.target is not None:
                self.target.load_state_dict(state["target"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ValueError(f"{path} does not fit this run: {' '.join(str(error).split())}") from error
        self.history = list(state["history"])
        self.seconds, self.evaluating, self.waited = state["clocks"]
