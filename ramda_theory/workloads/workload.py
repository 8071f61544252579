"""`Workload`: a training task in one object: model, data, loss, metric, groups, and the settings of every optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ramda_theory.arrays import integers, real
from ramda_theory.regularizers import GroupLasso, Regularizer
from ramda_theory.workloads.examples import Batch, Examples

if TYPE_CHECKING:
    from torch import Tensor, nn

SPLITS = ("train", "validation", "test")

Data = Mapping[str, Examples]
"""The three splits by their names."""


@dataclass(frozen=True)
class Settings:
    """What one optimizer is run with on a workload.

    Parameters
    ----------
    lr : float
        eta > 0.
    averaging : float
        c in (0, 1]; not used by AdamW and ProxAdamW.
    weight : float
        lambda >= 0.
    """

    lr: float
    averaging: float = 0.1
    weight: float = 0.0

    def __post_init__(self) -> None:
        real("lr", self.lr, minimum=0.0, strict=True)
        if not 0 < real("averaging", self.averaging, minimum=0.0) <= 1:
            raise ValueError(f"averaging must be in (0, 1], got {self.averaging!r}")
        real("weight", self.weight, minimum=0.0)


def input_groups(model: nn.Module, regularizer: Regularizer) -> Iterable[dict[str, Any]]:
    """Every weight of a known module, by input channel or feature; no bias, norm or embedding.

    Parameters
    ----------
    model : torch.nn.Module
    regularizer : Regularizer

    Returns
    -------
    ParamGroups
        As `ramda_theory.model.groups.structured_param_groups` makes them.
    """
    from ramda_theory.model.groups import structured_param_groups

    return structured_param_groups(model, regularizer)


@dataclass(frozen=True)
class Workload:
    """A training task.  A file with one under the name ``WORKLOAD`` is run by ``ramda-theory train --workload FILE``.

    Parameters
    ----------
    name : str
        Short.
    about : str
        Model and data in one line.
    model : callable
        ``model(data)`` makes a freshly initialised network (the caller has set the seed); the data tell how many
        channels, classes or symbols there are.
    data : callable
        ``data(folder)`` gives `Examples` under "train", "validation" and "test"; ``folder`` is None without ``--data``.
    loss : callable
        ``loss(model, batch)``, the mean over the samples of a batch, differentiable.
    score : callable
        ``score(model, batch)`` gives (sum over the batch, count): their quotient over all batches is the metric.
    metric : str
        Its name.
    higher_is_better : bool
    regularizer : callable
        ``regularizer(weight)``.
    groups : callable
        ``groups(model, regularizer)``: parameter groups for the optimizer.
    why : str
        Which weights are regularized, in which groups, and why.
    settings : mapping from optimizer to Settings
        Keys as in ``ramda-theory train --optimizer``; those that are missing have the optimizer's own.
    batch, epochs : int
    milestones : tuple of int
        Epochs after which a stage begins.
    gamma : float
        Decay of the learning rate (and of eps) at a milestone.
    reset : callable, optional
        ``reset(model)`` before every pass over data, for models that carry something from batch to batch.
    clip : float, optional
        Largest norm of the whole gradient.
    cost : str
        What a run takes: weights, memory, time.
    needs_data : str
        What ``data`` reads: which data set, where from, its size and licence.
    display : callable
        The metric from the quotient, such as exp for a perplexity; the quotient itself by default.

    Examples
    --------
    >>> WORKLOAD = Workload("mine", "my network on my data", model=make, data=read, loss=loss, score=score)
    ... # doctest: +SKIP
    """

    name: str
    about: str
    model: Callable[[Data], nn.Module]
    data: Callable[[Path | None], Data]
    loss: Callable[[nn.Module, Batch], Tensor]
    score: Callable[[nn.Module, Batch], tuple[Tensor, int]]
    metric: str = "accuracy"
    higher_is_better: bool = True
    regularizer: Callable[[float], Regularizer] = GroupLasso
    groups: Callable[[nn.Module, Regularizer], Iterable[dict[str, Any]]] = input_groups
    why: str = "every weight, by input channel or feature: an input whose group is zero need not be computed"
    settings: Mapping[str, Settings] = field(default_factory=dict)
    batch: int = 128
    epochs: int = 100
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    reset: Callable[[nn.Module], None] | None = None
    clip: float | None = None
    cost: str = ""
    needs_data: str = ""
    display: Callable[[float], float] = float

    def __post_init__(self) -> None:
        for name in ("model", "data", "loss", "score", "regularizer", "groups", "display"):
            if not callable(getattr(self, name)):
                raise TypeError(f"{name} of workload {self.name!r} must be callable, got {getattr(self, name)!r}")
        for name in ("batch", "epochs"):
            if integers(name, getattr(self, name))[0] < 1:
                raise ValueError(f"{name} of workload {self.name!r} must be at least 1, got {getattr(self, name)!r}")
        milestones = integers("milestones", self.milestones)
        if any(later <= earlier for earlier, later in zip((0, *milestones), milestones, strict=False)):
            raise ValueError(f"milestones of workload {self.name!r} must be positive and increasing, got {milestones}")
        for optimizer, settings in self.settings.items():
            if not isinstance(settings, Settings):
                raise TypeError(f"settings of {optimizer} must be Settings, got {settings!r}")

    def splits(self, folder: Path | None) -> Data:
        """The data, looked at before anything runs.

        Parameters
        ----------
        folder : path or None
            What ``--data`` named.

        Returns
        -------
        mapping from str to Examples
            "train", "validation" and "test".

        Raises
        ------
        ValueError
            If a split is missing or empty.
        """
        data = self.data(folder)
        for split in SPLITS:
            if split not in data or not isinstance(data[split], Examples):
                raise ValueError(
                    f"data of workload {self.name!r} must give Examples under {split!r}, got {sorted(data)}"
                )
            if not len(data[split]):
                raise ValueError(f"data of workload {self.name!r}: the split {split!r} is empty")
        return data
