"""What the compiled functions are told: one table per regularizer's rule and dtype, a row per tensor."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ramda_theory.kernels.cpu.launch import announced, compiled_module, shared
from ramda_theory.kernels.cpu.layout import Sizes, parts
from ramda_theory.kernels.cpu.sizes import BATCHES, TOGETHER, WORTHWHILE
from ramda_theory.kernels.recurrences import MAX_NUMBERS, MAX_OPTIONS, Recurrence
from ramda_theory.kernels.rules import is_grouped

LARGEST_NUMBER = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Row:
    """One tensor of a table.

    Parameters
    ----------
    weight : Tensor
        W in float32.
    bits : Tensor, optional
        The parameter itself, if it is in half precision.
    arrays : tuple of Tensor
        Of the state, in the order of `Recurrence.arrays`.
    step : Tensor
        t, int64.
    weight_sum : Tensor, optional
        alpha, float64.
    norms : Tensor, optional
        Of the groups, from the step before.
    sizes : Sizes
    spec : tuple of float
        Weight and number of the entries' part (or gamma of the groups'), weight of a group.
    """

    weight: Tensor
    bits: Tensor | None
    arrays: tuple[Tensor, ...]
    step: Tensor
    weight_sum: Tensor | None
    norms: Tensor | None
    sizes: Sizes
    spec: tuple[float, float, float]

    def tensors(self) -> list[Tensor]:
        """All of them but the gradient."""
        own = (self.weight, self.bits, *self.arrays, self.step, self.weight_sum, self.norms)
        return [tensor for tensor in own if tensor is not None]


class Table:
    """The tensors that one compiled function steps.

    Parameters
    ----------
    recurrence : Recurrence
    rule, dtype : int
        As in `ramda_theory.kernels.cpu.variants`.
    rows : sequence of Row

    Attributes
    ----------
    gradients, settings : views of the tables
        Addresses of the gradients; sign, c and the options, to be set before a step.
    """

    def __init__(self, recurrence: Recurrence, rule: int, dtype: int, rows: Sequence[Row]) -> None:
        module: Any = compiled_module()
        method = module.METHODS.index(recurrence)
        with announced():
            self._advance, self._step = module.advance(method), module.step(method, rule, dtype)
            self._squares = module.squares(dtype)
        self.weights = [row.weight for row in rows] + [row.bits for row in rows if row.bits is not None]
        self._addresses = np.zeros((len(rows), 9), dtype=np.int64)
        self._settings = np.zeros((len(rows), module.OPTIONS + MAX_OPTIONS))
        self._numbers = np.zeros((len(rows), module.PROLOGUE + MAX_NUMBERS))
        self._sizes = np.array([row.sizes for row in rows], dtype=np.int64)
        self.gradients = self._addresses[:, module.G]
        for at, own, row in zip(self._addresses, self._settings, rows, strict=True):
            at[module.W] = row.weight.data_ptr()
            at[module.P] = 0 if row.bits is None else row.bits.data_ptr()
            at[module.X : module.X + len(row.arrays)] = [array.data_ptr() for array in row.arrays]
            at[module.STEP] = row.step.data_ptr()
            at[module.WEIGHT_SUM] = 0 if row.weight_sum is None else row.weight_sum.data_ptr()
            at[module.NORMS] = 0 if row.norms is None else row.norms.data_ptr()
            own[module.ENTRY_WEIGHT : module.OPTIONS] = row.spec
        self._columns = [module.SIGN, module.C, *range(module.OPTIONS, module.OPTIONS + MAX_OPTIONS)]
        self._plan(is_grouped(rule))

    def _plan(self, grouped: bool) -> None:
        weights = int(self._sizes.prod(axis=1).sum())
        enough = max(WORTHWHILE, weights // (BATCHES * max(torch.get_num_threads(), 1)))
        self._threads = torch.get_num_threads()
        self.units, self.batches = _batches([tuple(row) for row in self._sizes.tolist()], grouped, enough)
        blocks = [_block(self._sizes[i], last - first) for i, first, last in self.units] if grouped else [(0, 0)]
        self._room, self._width = (max(lengths) for lengths in zip(*blocks, strict=True))
        flat = [(1, 1, 1, math.prod(row)) for row in self._sizes.tolist()]
        self.flat_units, self.flat_batches = _batches(flat, False, enough)

    def set_gradients(self, addresses: Sequence[int]) -> None:
        """Where the gradients of this step lie."""
        self.gradients[:] = addresses

    def set_options(self, first: int, last: int, sign: float, momentum: float, options: Sequence[float]) -> None:
        """The settings of the rows first .. last - 1, which belong to one parameter group."""
        rows = slice(first, last)
        self._settings[rows, self._columns[0]] = sign
        self._settings[rows, self._columns[1]] = 1.0 - momentum
        start = self._columns[2]
        self._settings[rows, start : start + len(options)] = options

    def squares(self, first: int, last: int) -> np.ndarray:
        """||G||^2 of every tensor over some of the flat units."""
        totals: np.ndarray = self._squares(self.flat_units[first:last], self.gradients)
        return totals

    def advance(self) -> None:
        """Count the step and work out its numbers."""
        self._advance(self._addresses, self._settings, self._numbers)

    def step(self, first: int, last: int) -> None:
        """Step some of the units."""
        tables = self._addresses, self._sizes, self._settings, self._numbers
        self._step(self.units[first:last], *tables, scratch(2 * self._room + self._width), self._room)


def _block(sizes: np.ndarray, groups: int) -> tuple[int, int]:
    """Entries and columns of a block of groups; of adjacent groups, entries of those solved together."""
    _, rows, _, size = sizes.tolist()
    return (rows * size * groups, size * groups) if rows > 1 else (max(size, min(TOGETHER, size * groups)), 0)


_own = threading.local()


def scratch(size: int) -> np.ndarray:
    """Memory of this thread for intermediate results; new pages in every step would take longer than the arithmetic."""
    found: np.ndarray | None = getattr(_own, "scratch", None)
    if found is None or found.size < size:
        found = _own.scratch = np.empty(size, dtype=np.float32)
    return found[:size]


def _batches(sizes: Sequence[Any], grouped: bool, enough: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The units of work (tensor, first group, last group + 1), and which of them make one call."""
    units: list[tuple[int, int, int]] = []
    batches: list[tuple[int, int]] = []
    begun, weights = 0, 0
    for tensor, size in enumerate(sizes):
        for first, last in parts(size, grouped, enough):
            units.append((tensor, first, last))
            weights += (last - first) * (size[1] * size[3] if grouped else 1)
            if weights >= enough:
                batches.append((begun, len(units)))
                begun, weights = len(units), 0
    if begun < len(units):
        batches.append((begun, len(units)))
    return np.array(units, dtype=np.int64), batches


def all_finite(tables: Sequence[Table]) -> bool:
    """Whether the norm of every gradient is a finite float32."""
    batches = [(table, *batch) for table in tables for batch in table.flat_batches]
    if len(batches) <= len(tables):  # too little for a thread
        return all((table.squares(0, len(table.flat_units)) <= LARGEST_NUMBER).all() for table in tables)
    totals = shared(batches, lambda batch: (batch[0], batch[0].squares(batch[1], batch[2])))
    return all(bool((sum(own for table, own in totals if table is each) <= LARGEST_NUMBER).all()) for each in tables)


def step_all(tables: Sequence[Table]) -> None:
    """t, alpha, the state and W of all tensors, in place; the result does not depend on the number of threads."""
    for table in tables:
        table.advance()
    batches = [(table, *batch) for table in tables for batch in table.batches]
    if len(batches) <= len(tables):
        for table in tables:
            table.step(0, len(table.units))
    else:
        shared(batches, lambda batch: batch[0].step(batch[1], batch[2]))
    # Autograd must notice that W has changed.
    torch.autograd.graph.increment_version([weight for table in tables for weight in table.weights])
