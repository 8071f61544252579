"""What the kernels of a step are told: tables on the device, and which tiles each launch steps."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from ramda_theory.kernels.recurrences import MAX_OPTIONS, Recurrence
from ramda_theory.kernels.rules import MCP, is_grouped
from ramda_theory.kernels.sharding import MeshSum
from ramda_theory.kernels.triton import cut_groups, entries, groups, numbers, support
from ramda_theory.kernels.triton.layout import (
    ENTRIES,
    Shape,
    even,
    flat_tiles,
    group_tiles,
    members,
    split_shape,
    tile_shape,
    unaligned_shape,
)
from ramda_theory.kernels.triton.rows import Row
from ramda_theory.kernels.triton.shared import SharedNorms
from ramda_theory.kernels.triton.translate import translated
from ramda_theory.kernels.triton.upload import AddressTables, uploaded

TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
TENSORS = 128
"""Whose numbers one program works out."""
ALONE, TEAM, SPLIT, SHARED = "alone", "team", "split", "shared"
"""How the tiles of a group come together: there is one, they meet, two launches, or those of several processes do."""


class Launch:
    """Tiles that one variant of a kernel steps.

    Parameters
    ----------
    recurrence : Recurrence
    rows : dict of int to Row
        By their place in the table.
    shape : Shape, optional
        Of tiles of groups.
    scheme : str
    aligned : bool
    device : torch.device
    """

    def __init__(
        self,
        recurrence: Recurrence,
        rows: dict[int, Row],
        shape: Shape | None,
        scheme: str,
        aligned: bool,
        device: torch.device,
    ) -> None:
        first = next(iter(rows.values()))
        self._scheme, self._shape, self._device = scheme, shape, device
        self._weights = {
            "PROLOGUE": translated(recurrence.prologue),
            "ARRAYS": len(recurrence.arrays),
            "METRIC": recurrence.metric,
            "AVERAGES": recurrence.averages,
            "RULE": first.rule,
            "DTYPE": TYPES[first.dtype],
            "ALIGNED": aligned,
        }
        self._changing = recurrence.changing
        if shape is None:
            tiles = [flat_tiles(i, row.weight.numel()) for i, row in rows.items()]
        else:
            tiles, block, room = [], 0, 0
            for i, row in rows.items():
                own, block, room = group_tiles(i, row.sizes, shape, block, room, meets=scheme == SHARED)
                tiles.append(own)
            self._weights |= {
                "SEVERAL": any(row.sizes[1] > 1 and row.sizes[3] > 1 for row in rows.values()),
                "BM": shape.rows,
                "BN": shape.columns,
            }
            self._scratch = torch.empty(max(room, 1), dtype=torch.float32, device=device)
            self._meetings = torch.zeros(2 * block, dtype=torch.int32, device=device)
        self._count = sum(map(len, tiles))
        self._tiles = uploaded(np.concatenate(tiles), device)

    def step(self, addresses: Tensor, gradients: Tensor, row_numbers: Tensor) -> None:
        """Step the tiles."""
        told = self._tiles, addresses, gradients, row_numbers
        changing = {"CHANGING": self._changing}
        if self._shape is None:
            options = entry_options(self._weights["RULE"], self._weights["DTYPE"])
            entries.step_entries[(self._count,)](*told, **self._weights, **changing, BLOCK=ENTRIES, **options)
            return
        launch = {"num_warps": self._shape.warps}
        meeting = self._scratch, self._meetings
        if self._scheme == SPLIT:
            # Left alone, the compiler spills some registers so that more programs fit.
            groups.measure_groups[(self._count,)](*told, *meeting, **self._weights, **launch, maxnreg=REGISTERS)
        if self._scheme in (SPLIT, SHARED):
            groups.write_groups[(self._count,)](*told, **self._weights, **changing, **launch)
            return
        grid = self._count
        launch["maxnreg"] = REGISTERS_ALONE
        if self._scheme == TEAM:
            grid = min(grid, resident(self._device, self._shape))
            launch |= {"launch_cooperative_grid": True, "maxnreg": REGISTERS}
        groups.step_groups[(grid,)](
            *told, *meeting, self._count, **self._weights, **changing, MEET=self._scheme == TEAM, **launch
        )

    def share(self, addresses: Tensor, gradients: Tensor, row_numbers: Tensor, count: int) -> None:
        """Leave the moments of the tiles in a shared table of ``count`` groups."""
        assert self._shape is not None
        told = self._tiles, addresses, gradients, row_numbers, self._scratch, self._meetings, count
        options = {"num_warps": self._shape.warps, "maxnreg": REGISTERS}
        cut_groups.share_moments[(self._count,)](*told, **self._weights, **options)


REGISTERS = 128
"""Of a thread at most, where programs must be on the device together, and where the compiler would use too few."""

REGISTERS_ALONE = 168
"""Of a thread at most, where one program takes a group by itself: to leave room for more it would have to spill."""


def entry_options(rule: int, dtype: Any) -> dict[str, Any]:
    """Options of the compiler where entries are stepped."""
    # For MCP in half precision it would use 80 registers, and spill.
    return {"num_warps": 8} | ({"maxnreg": REGISTERS} if rule == MCP and dtype != tl.float32 else {})


def resident(device: torch.device, shape: Shape) -> int:
    """Programs that are on a device together, at least."""
    per_processor = max(65536 // (REGISTERS * 32 * shape.warps), 1)
    return int(torch.cuda.get_device_properties(device).multi_processor_count) * per_processor


def scheme_of(row: Row, shape: Shape, device: torch.device) -> str:
    """How the tiles of a tensor's groups come together."""
    if row.cut is not None:
        return SHARED
    team = members(row.sizes, shape)
    if team == 1:
        return ALONE
    # Only NVIDIA's driver lets Triton launch cooperatively; the interpreter runs programs one after another.
    cooperative = device.type == "cuda" and torch.version.hip is None
    return TEAM if cooperative and team <= resident(device, shape) else SPLIT


class Table:
    """The tensors on a device that the kernels step.

    Parameters
    ----------
    recurrence : Recurrence
    key : (str, torch.device)
    rows : sequence of Row
    """

    def __init__(self, recurrence: Recurrence, key: tuple[str, torch.device], rows: Sequence[Row]) -> None:
        device = self._device = key[1]
        self.weights = [row.weight for row in rows] + [row.bits for row in rows if row.bits is not None]
        own = np.array([row.groups if row.needs_room and row.cut is None else 0 for row in rows])
        # Between two launches norms have to be somewhere, also those that no step starts from.
        self._norms = torch.empty(int(own.sum()), dtype=torch.float32, device=device)
        rooms = dict(enumerate(self._norms.data_ptr() + 4 * (np.cumsum(own) - own)))
        cut: dict[MeshSum, dict[int, Row]] = {}
        for i, row in enumerate(rows):
            if row.cut is not None:
                cut.setdefault(row.cut, {})[i] = row
        self._shared = {among: SharedNorms(recurrence, among, theirs, device) for among, theirs in cut.items()}
        for each in self._shared.values():
            rooms |= each.rooms
        self._kept = [row.norms for row in rows]
        owners = {id(row.options): row.options for row in rows}
        numbering = {owner: k for k, owner in enumerate(owners)}
        self._group_at = [numbering[id(row.options)] for row in rows]
        self._count, self._recurrence = len(rows), recurrence
        table = np.array([row.addresses(int(rooms[i])) for i, row in enumerate(rows)], dtype=np.int64)
        self._addresses = uploaded(table, device)
        self._specs = uploaded(np.array([row.numbers() for row in rows], dtype=np.float64), device)
        self._groups = uploaded(np.array(self._group_at, dtype=np.int32), device)
        self._numbers = torch.empty((len(rows), numbers.NUMBERS.value), dtype=torch.float32, device=device)
        self._options = np.zeros((len(owners), numbers.OPTIONS.value), dtype=np.float64)
        self._sources = np.zeros((len(owners), numbers.OPTIONS.value), dtype=np.int64)
        self._options_there: tuple[Tensor, Tensor] | None = None
        self._tensors: dict[int, list[Tensor]] = {}
        self._gradients = AddressTables(len(rows), device)
        self._found = torch.zeros((), dtype=torch.bool, device=device)
        self._one = torch.ones((), dtype=torch.float32, device=device)
        self._variant = {
            "RECURRENCE": translated(recurrence.numbers),
            "FOUND": len(recurrence.numbers(1.0, 1.0, (0.5,) * MAX_OPTIONS)[2]),
            "AVERAGES": recurrence.averages,
            "SUMS": recurrence.sums,
        }
        self._compiled = False
        self._launches: list[Launch] = []
        self._sharing: dict[MeshSum, list[Launch]] = {among: [] for among in self._shared}
        for own_rows, shape, scheme, aligned in _launches(rows, device):
            self._launches.append(launch := Launch(recurrence, own_rows, shape, scheme, aligned, device))
            first = next(iter(own_rows.values()))
            if first.cut is not None:
                self._sharing[first.cut].append(launch)
        self._flat: list[tuple[Tensor, int, Any]] = []
        for dtype in dict.fromkeys(row.dtype for row in rows):
            tiles = np.concatenate(
                [flat_tiles(i, row.weight.numel()) for i, row in enumerate(rows) if row.dtype is dtype]
            )
            self._flat.append((uploaded(tiles, device), len(tiles), TYPES[dtype]))

    def set_gradients(self, addresses: list[int]) -> None:
        """Where the gradients of this step lie."""
        self._gradients.choose(addresses)

    def set_options(self, first: int, last: int, sign: float, momentum: Any, options: Sequence[Any]) -> None:
        """The settings of the rows first .. last - 1, which belong to one parameter group."""
        group = self._group_at[first]
        self._tensors[group] = []
        for column, value in enumerate((sign, momentum, *options)):
            number, source = value, 0
            if isinstance(value, Tensor):
                self._tensors[group].append(value)
                number, source = 0.0, value.data_ptr() + (value.dtype is torch.float64)
            self._options[group, column], self._sources[group, column] = number, source
        self._options_there = None

    def nonfinite(self) -> Tensor:
        """Whether a gradient is not finite, as a flag on the device."""
        self._found.zero_()
        with self._on_device():
            for tiles, count, dtype in self._flat:
                if count:
                    numbers.look[(count,)](
                        tiles, self._gradients.there, self._found, DTYPE=dtype, BLOCK=ENTRIES, num_warps=8
                    )
        return self._found

    def step(self, found: Tensor | None = None, grad_scale: Tensor | None = None) -> None:
        """t, alpha, the state and W of all tensors, in place, unless ``found``; gradients divided by ``grad_scale``."""
        if self._options_there is None:
            self._options_there = uploaded(self._options, self._device), uploaded(self._sources, self._device)
        gradients = self._gradients.there
        with self._on_device():
            numbers.advance[(triton.cdiv(self._count, TENSORS),)](
                self._addresses,
                self._specs,
                self._groups,
                *self._options_there,
                self._found if found is None else found,
                self._one if grad_scale is None else grad_scale,
                self._numbers,
                self._count,
                **self._variant,
                MASKED=found is not None,
                UNSCALES=grad_scale is not None,
                BLOCK=TENSORS,
            )
            told = self._addresses, gradients, self._numbers
            for among, shared in self._shared.items():
                shared.solve(self._sharing[among], *told)
            for launch in self._launches:
                launch.step(*told)
        self._compiled = True

    def _on_device(self) -> AbstractContextManager[None]:
        return launching(self._device, self._compiled or support.interpreted())


_said = threading.Event()


@contextmanager
def announced() -> Iterator[None]:
    """Say on stderr, once per process, what the wait is for, if first launches take longer than a second.

    They wait for the compiler alone; what it has on disk takes no time that needs a word.
    """

    def say() -> None:
        if not _said.is_set():
            _said.set()
            print(
                "ramda_theory: compiling the step for this GPU; it takes seconds, once, and is kept on disk",
                file=sys.stderr,
                flush=True,
            )

    timer = threading.Timer(1.0, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def launching(device: torch.device, compiled: bool) -> Iterator[None]:
    """The device for launches, and a word about it if they have to be compiled."""
    with (
        torch.cuda.device(device) if device.type == "cuda" else nullcontext(),
        nullcontext() if compiled else announced(),
    ):
        yield


def _launches(rows: Sequence[Row], device: torch.device) -> list[tuple[dict[int, Row], Shape | None, str, bool]]:
    """Rows by what their variant of a kernel depends on; tensors without entries are in none."""
    found: dict[Any, tuple[dict[int, Row], Shape | None, str, bool]] = {}
    for i, row in enumerate(rows):
        if not row.weight.numel():
            continue
        shape = tile_shape(row.sizes) if is_grouped(row.rule) else None
        scheme = ALONE if shape is None else scheme_of(row, shape, device)
        if shape is not None and scheme == TEAM and not (row.aligned and even(row.sizes, shape)):
            shape = unaligned_shape(shape)
            scheme = scheme_of(row, shape, device)
        if shape is not None and scheme in (SPLIT, SHARED):
            shape = split_shape(shape)
        regular = row.weight.numel() % 4 == 0 if shape is None else even(row.sizes, shape)
        aligned = regular and row.aligned
        several = row.sizes[1] > 1 and row.sizes[3] > 1
        key = (row.rule, row.dtype, shape, scheme, aligned, shape is not None and several, row.cut)
        found.setdefault(key, ({}, shape, scheme, aligned))[0][i] = row
    return list(found.values())


def step_all(tables: Sequence[Table], found: Tensor | None = None, grad_scale: Tensor | None = None) -> None:
    """`Table.step` of all."""
    for table in tables:
        table.step(found, grad_scale)
    # Autograd must notice that W has changed.
    torch.autograd.graph.increment_version([weight for table in tables for weight in table.weights])
