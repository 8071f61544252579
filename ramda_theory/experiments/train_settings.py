"""What a training run on the digits is to be, and what it leaves."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ramda_theory.arrays import integers, real
from ramda_theory.tables import aligned
from ramda_theory.workloads.digits import MODELS

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


def tuple_or(value: Any) -> Any:
    """Lists as tuples, everything else as it is."""
    return tuple(value) if isinstance(value, list) else value
