"""Norms of groups cut across processes: a sum over the processes between two launches, for each update of theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor

from ramda_theory.kernels.recurrences import Recurrence
from ramda_theory.kernels.sharding import MeshSum
from ramda_theory.kernels.triton import cut_groups
from ramda_theory.kernels.triton.rows import Row
from ramda_theory.kernels.triton.translate import translated
from ramda_theory.kernels.triton.upload import uploaded

UPDATES = 10
"""Of norms in a step, since nobody looks whether more are needed: of 18 000 groups whose metric and data span up to ten
orders of magnitude, starting from 0 or a thousand times off, none takes more (tests/kernels/test_sharded.py)."""
GROUPS = 256
"""Whose norms one program works out."""


class SharedNorms:
    """The norms of the groups that are cut among the same processes.

    Parameters
    ----------
    recurrence : Recurrence
    mesh_sum : MeshSum
    rows : dict of int to Row
        By their place in the table.
    device : torch.device

    Attributes
    ----------
    rooms : dict of int to int
        Address of each row's norms between two launches.
    """

    def __init__(
        self, recurrence: Recurrence, mesh_sum: MeshSum, rows: Mapping[int, Row], device: torch.device
    ) -> None:
        groups = np.array([row.groups for row in rows.values()])
        first = np.cumsum(groups) - groups
        self._count, self._mesh_sum, self._metric = int(groups.sum()), mesh_sum, recurrence.metric
        self._shared = torch.zeros((cut_groups.PLANES.value, self._count), dtype=torch.float32, device=device)
        self._sums = self._shared[cut_groups.SUMS.value : cut_groups.OPEN.value]
        self.rooms = {i: self._shared.data_ptr() + 4 * int(at) for i, at in zip(rows, first, strict=True)}
        within = np.arange(self._count) - np.repeat(first, groups)
        kept = np.repeat([row.kept_norms for row in rows.values()], groups) + 4 * within
        self._owners = uploaded(np.repeat(np.array(list(rows), dtype=np.int32), groups), device)
        self._kept = uploaded(kept.astype(np.int64), device)
        self._prologue = translated(recurrence.prologue)

    def solve(self, launches: Sequence[Any], addresses: Tensor, gradients: Tensor, numbers: Tensor) -> None:
        """Find the norms, and leave them where the launches that write look for them; all processes must do so."""
        if not self._count:
            return
        grid = (triton.cdiv(self._count, GROUPS),)
        told = self._shared, self._owners, self._kept, numbers, self._count
        variant = {"METRIC": self._metric, "GROUPS": GROUPS}
        cut_groups.first_norms[grid](*told, **variant)
        updates = UPDATES if self._metric else 1
        for update in range(updates):
            for launch in launches:
                launch.share(addresses, gradients, numbers, self._count)
            self._mesh_sum.add_up(self._sums if self._metric else self._sums[0])
            cut_groups.next_norms[grid](*told, PROLOGUE=self._prologue, LAST=update == updates - 1, **variant)
