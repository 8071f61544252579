"""What a run of a workload is to be, and what it leaves."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ramda_theory.arrays import integers, real
from ramda_theory.experiments.entrants import find_entrant
from ramda_theory.tables import aligned
from ramda_theory.workloads.workload import Settings, Workload

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
        given = (workload.settings.get(name) for name in (self.optimizer, entrant.settings_of))
        known = next((settings for settings in given if settings is not None), Settings(entrant.lr))
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
    def stem(self) -> str:
        """The workload's name, or its file's without folder and suffix."""
        return Path(self.workload).stem if self.workload.endswith(".py") else self.workload

    @property
    def name(self) -> str:
        """Short, unique among runs that differ in optimizer, weight, lr and seed."""
        lr = "" if self.lr is None else f"-lr{self.lr:g}"
        weight = "" if self.weight is None else f"-{self.weight:g}"
        return f"{self.stem}-{self.optimizer}{lr}{weight}-seed{self.seed}"


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
