"""The structure of one weight of a network in counts, read from its exact zeros."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, astuple, dataclass
from typing import Any

import torch
from torch import Tensor

from ramda_theory.model.wrappers import unwrapped
from ramda_theory.regularizers import NuclearNorm, Regularizer
from ramda_theory.structure import Rank

HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class LayerStructure:
    """Counts of one weight, or of several added up.

    Parameters
    ----------
    name : str
    entries, zero_entries : int
        All entries, and those that are exactly zero.
    groups, zero_groups : int
        All groups, and those whose entries are all zero; 0 and 0 where the regularizer has no groups.
    grouped_entries, zero_group_entries : int
        Entries in all groups, and in the zero ones.
    singular_values, rank : int
        All singular values, and those above rounding level; 0 and 0 where nobody asked, and where a weight cannot
        tell: in half precision, whose rounding hides small singular values, and where it is not finite.
    """

    name: str
    entries: int
    zero_entries: int
    groups: int = 0
    zero_groups: int = 0
    grouped_entries: int = 0
    zero_group_entries: int = 0
    singular_values: int = 0
    rank: int = 0

    @property
    def group_sparsity(self) -> float | None:
        """Weighted group sparsity: entries in zero groups / entries in all groups; None without groups."""
        return self.zero_group_entries / self.grouped_entries if self.grouped_entries else None

    @property
    def low_rank_level(self) -> float | None:
        """1 - rank / number of singular values; None without ranks."""
        return 1.0 - self.rank / self.singular_values if self.singular_values else None

    @property
    def entry_sparsity(self) -> float | None:
        """Zero entries / all entries; None without entries."""
        return self.zero_entries / self.entries if self.entries else None

    @property
    def counts(self) -> tuple[int, ...]:
        """The eight counts, in the order of the parameters."""
        return astuple(self)[1:]

    @classmethod
    def total(cls, layers: Iterable[LayerStructure]) -> LayerStructure:
        """All layers as one."""
        return cls("total", *(sum(column) for column in zip(*(layer.counts for layer in layers), strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Counts and levels as plain data."""
        return {**asdict(self), **{level: getattr(self, level) for level in LEVELS}}


LEVELS = ("group_sparsity", "low_rank_level", "entry_sparsity")


def read_structure(name: str, weight: Tensor, regularizer: Regularizer, ranks: bool) -> LayerStructure:
    """The structure of ``weight``.

    Groups are those of the regularizer.  The rank, if wanted, is that of the regularizer's matricisation for the
    nuclear norm, and of the first axis against all others for the rest; vectors have none.
    """
    counts = {"entries": weight.numel(), "zero_entries": weight.numel() - int(torch.count_nonzero(weight))}
    if (support := regularizer.group_support(weight)) is not None:
        counts |= {"groups": support.pattern.size, "zero_groups": support.pattern.size - support.count}
        counts |= {"grouped_entries": weight.numel(), "zero_group_entries": weight.numel() - support.dimension}
    if ranks and weight.ndim > 1 and weight.dtype not in HALF and bool(torch.isfinite(weight).all()):
        found = regularizer.structure(weight)
        if not isinstance(found, Rank):
            found = NuclearNorm(0.0, (0,), tuple(range(1, weight.ndim))).structure(weight)
        counts |= {"singular_values": min(found.rows, found.columns), "rank": found.rank}
    return LayerStructure(name, **counts)


def regularized(groups: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Tensor, Regularizer]]:
    """Name, whole weight on the host and regularizer of every regularized parameter of ``param_groups``."""
    for i, group in enumerate(groups):
        if group.get("regularizer") is None:
            continue
        names = group.get("param_names") or [f"group {i}, parameter {j}" for j in range(len(group["params"]))]
        if group["regularizer"].joint_shapes is not None:
            whole = torch.cat([parameter.detach().reshape(-1).cpu() for parameter in group["params"]])
            yield " + ".join(names[:2]) + f" + {len(names) - 2} more" * (len(names) > 2), whole, group["regularizer"]
            continue
        for name, parameter in zip(names, group["params"], strict=True):
            weight = parameter.detach()
            gather = getattr(weight, "full_tensor", None)  # of a DTensor
            yield name, (weight if gather is None else gather()).cpu(), group["regularizer"]


def points(optimizer: torch.optim.Optimizer) -> dict[str, AbstractContextManager[Any]]:
    """The points an optimizer can show, each as a context inside which the model holds it.

    "w" are the weights; "w_hat" the solution of the last subproblem, for optimizers that have `structured_point`.
    """
    optimizer = unwrapped(optimizer)
    shown: dict[str, AbstractContextManager[Any]] = {"w": nullcontext()}
    if hasattr(optimizer, "structured_point"):
        shown["w_hat"] = optimizer.structured_point()
    return shown
