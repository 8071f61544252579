"""`StructureTracker`: the structure of a network over its training."""

from __future__ import annotations

import json
import os
import weakref
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ramda_theory.diagnostics.identification import Identification
from ramda_theory.files import write_atomically
from ramda_theory.model.layers import LEVELS, LayerStructure, points
from ramda_theory.model.logs import Sink, sink_of
from ramda_theory.model.settled import NOISE, SAFETY, Settled, SettledPieces
from ramda_theory.model.snapshot import Snapshot, flips, take
from ramda_theory.model.wrappers import unwrapped
from ramda_theory.problems.checks import integer

RANK = [field.name for field in fields(LayerStructure)].index("rank") - 1
"""Where `LayerStructure.counts` holds the rank."""
COUNTS = len(fields(LayerStructure)) - 1
"""How many numbers `LayerStructure.counts` holds."""


class StructureTracker:
    """Records the structure of w and w_hat, a few bits per group or entry.

    Call `record` once per step or per epoch.  Right after a restart, "w_hat" is that of the stage that has ended: the
    new one has no structure of its own yet.  A record holds one bit per group (three per entry or group for psi with
    signs or branches, a number for a rank) and waits for the device; with sharded parameters every process must call.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        Its regularized parameters are followed: at "w", and at "w_hat" if it has `structured_point`.
    every : int
        Keep every so many calls of `record`; the others cost nothing.
    unit : str
        What a call stands for, "step" or "epoch" or another word for the axis of the figure.

    Attributes
    ----------
    times : list of int
        For every record, the number of calls of `record` when it was taken (1 for the first call).
    points : tuple of str
        "w" and, if there is one, "w_hat".
    names : tuple of str
        The weights followed.

    Examples
    --------
    >>> tracker = StructureTracker(optimizer, unit="epoch")  # doctest: +SKIP
    >>> for epoch in range(100):  # doctest: +SKIP
    ...     train()
    ...     tracker.record()
    >>> tracker.plot("structure.pdf")  # doctest: +SKIP
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, every: int = 1, unit: str = "step") -> None:
        if not isinstance(optimizer, torch.optim.Optimizer) and not hasattr(optimizer, "optimizer"):
            raise TypeError(f"optimizer must be a torch optimizer, got {type(optimizer).__name__}")
        optimizer = unwrapped(optimizer)
        self.every = integer("every", every, 1)
        if not isinstance(unit, str):
            raise TypeError(f"unit must be a word, got {unit!r}")
        self.unit = unit
        self._optimizer: Any = optimizer
        self._fields = take(optimizer.param_groups).fields
        self._calls = 0
        self.times: list[int] = []
        self._bits: dict[str, list[np.ndarray]] = {point: [] for point in points(optimizer)}
        self._counts: dict[str, list[np.ndarray]] = {point: [] for point in self._bits}
        self._sinks: list[Sink] = []
        self._pieces = SettledPieces(optimizer)
        self._ended_stage: Snapshot | None = None
        if hasattr(optimizer, "register_restart_pre_hook"):
            end_stage = weakref.WeakMethod(self._end_stage)
            optimizer.register_restart_pre_hook(lambda: None if (end := end_stage()) is None else end())

    def _end_stage(self) -> None:
        """Keep What of the stage that ends: right after a restart it says nothing of its own."""
        with points(self._optimizer)["w_hat"]:
            self._ended_stage = take(self._optimizer.param_groups)

    @property
    def points(self) -> tuple[str, ...]:
        return tuple(self._bits)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self._fields)

    def __len__(self) -> int:
        """Number of records."""
        return len(self.times)

    def record(self) -> None:
        """Count a call and, if it is the turn of one, take a record.

        Raises
        ------
        RuntimeError
            If the regularized parameters are no longer those the tracker began with; nothing is recorded then.
        """
        calls = self._calls + 1
        if calls % self.every == 0:
            taken: dict[str, Snapshot] = {}
            for point, shown in points(self._optimizer).items():
                with shown:
                    taken[point] = take(self._optimizer.param_groups)
                if point == "w_hat" and self._ended_stage is not None and self._optimizer.stage_is_fresh:
                    taken[point] = self._ended_stage
                if taken[point].fields != self._fields:
                    raise RuntimeError("the regularized parameters have changed: begin a new StructureTracker")
            for point, snapshot in taken.items():
                self._bits[point].append(snapshot.bits)
                self._counts[point].append(snapshot.counts)
            self.times.append(calls)
            self._ended_stage = None
        self._calls = calls
        if self._sinks and self.times and self.times[-1] == calls:
            scalars = self._scalars()
            for sink in self._sinks:
                sink(calls, scalars)

    def _scalars(self) -> dict[str, float]:
        """Levels and flips of the last record, as "structure/w_hat/group_sparsity" and so on."""
        found: dict[str, float] = {}
        for point in self.points:
            total = LayerStructure.total(self.layers(-1, point))
            values = {level: getattr(total, level) for level in LEVELS}
            bits = np.asarray(self._bits[point][-2:], dtype=np.uint8).reshape(-1, self._fields[-1].stop)
            ranks = np.asarray(self._counts[point][-2:], dtype=np.int64)[:, :, RANK]
            values["flips"] = int(flips(self._fields, bits, ranks)[-1])
            found |= {f"structure/{point}/{name}": value for name, value in values.items() if value is not None}
        return found

    def log_to(self, target: Any) -> None:
        """Write the levels and flips of every record to come to a log as well.

        Parameters
        ----------
        target : path, SummaryWriter, wandb run, or callable
            A ``.csv`` file (made anew, or gone on with where this tracker has records), anything with ``add_scalar``
            (TensorBoard), anything with ``log(dict, step=...)`` (wandb), or a function of the call and the scalars.

        Raises
        ------
        TypeError, ValueError
            If it is none of these.
        """
        self._sinks.append(sink_of(target, self._calls))

    # -- what the records say ---------------------------------------------------------------------------------------

    def layers(self, record: int = -1, point: str | None = None) -> tuple[LayerStructure, ...]:
        """Counts of every weight in one record (ranks for the nuclear norm only).

        Parameters
        ----------
        record : int
            Index of a record; negative ones count from the end.
        point : str, optional
            "w" or "w_hat"; by default the latter if the optimizer has it.

        Returns
        -------
        tuple of LayerStructure
            One per regularized weight.

        Raises
        ------
        IndexError, ValueError
            If there is no such record or point.
        """
        counts = self._counts[self._point(point)][self._record(record)]
        return tuple(LayerStructure(name, *row) for name, row in zip(self.names, counts.tolist(), strict=True))

    def pattern(self, name: str, record: int = -1, point: str | None = None) -> np.ndarray:
        """Pattern of one weight in one record: 0 where a group or entry is zero, else its sign or branch (`Pattern`).

        Groups keep the axes of the weight, those that a group spans with length one.

        Parameters
        ----------
        name : str
            One of `names`.
        record : int
            Index of a record; negative ones count from the end.
        point : str, optional
            "w" or "w_hat"; by default the latter if the optimizer has it.

        Returns
        -------
        array of int8
            Of as many axes as the weight.

        Raises
        ------
        IndexError, ValueError
            If there is no such record, weight or point, or the weight has a rank instead.
        """
        if name not in self.names:
            raise ValueError(f"name must be one of {self.names}, got {name!r}")
        field = self._fields[self.names.index(name)]
        if not field.planes:
            raise ValueError(f"{name} has a rank, not a pattern: see `layers`")
        return field.unpack(self._bits[self._point(point)][self._record(record)])

    def curve(self, level: str = "group_sparsity", point: str | None = None) -> np.ndarray:
        """A level of `LayerStructure` over all weights in every record; NaN where there is nothing to tell.

        Parameters
        ----------
        level : {"group_sparsity", "low_rank_level", "entry_sparsity"}
            What to show.
        point : str, optional
            "w" or "w_hat"; by default the latter if the optimizer has it.

        Returns
        -------
        array of float
            An entry per record, in [0, 1] or NaN.

        Raises
        ------
        ValueError
            If there is no such level or point.
        """
        if level not in LEVELS:
            raise ValueError(f"level must be one of {LEVELS}, got {level!r}")
        totals = (LayerStructure("total", *each.sum(axis=0).tolist()) for each in self._counts[self._point(point)])
        return np.asarray([getattr(total, level) for total in totals], dtype=np.float64)

    def flips(self, point: str | None = None) -> np.ndarray:
        """Groups, entries and ranks that changed since the record before; 0 for the first.

        Parameters
        ----------
        point : str, optional
            "w" or "w_hat"; by default the latter if the optimizer has it.

        Returns
        -------
        array of int
            An entry per record.

        Raises
        ------
        ValueError
            If ``point`` is none of `points`.
        """
        return flips(self._fields, *self._rows(self._point(point)))

    def identification(self, point: str | None = None) -> Identification:
        """T0 against the run's own end: the first record from which the structure stays what it is in the last.

        ``time``, ``held_for`` and ``steps`` count calls of `record`; with ``every`` > 1 the structure is known only at
        every so many of them.  A structure seen in the last record alone has ``held_for`` 1: it has not held yet.

        Parameters
        ----------
        point : str, optional
            "w" or "w_hat"; by default the latter if the optimizer has it.

        Returns
        -------
        Identification

        Raises
        ------
        ValueError
            If there is no record.
        """
        changes = np.flatnonzero(self.flips(point))
        if not len(self):
            raise ValueError("there is no record yet: call `record` first")
        time = self.times[int(changes[-1]) if len(changes) else 0]
        return Identification(time, self.times[-1] - time + 1, 0, self.times[-1])

    def settled(
        self,
        loss: Callable[[Any], torch.Tensor],
        batches: Iterable[Any],
        remaining: int | None = None,
        *,
        noise: float = NOISE,
        safety: float = SAFETY,
    ) -> Settled:
        """State which groups will be at the run's end what they are now, from gradients at w_hat itself.

        Call it from time to time, beside `record`; the first two calls settle nothing.  Over the last three calls a
        group is "zero" if it always was and its mean gradient plus ``noise`` standard errors always stayed below its
        bound lambda_g; "nonzero" if it always was and its norm exceeds ``safety`` times what the rest of the run would
        move it at the fastest pace seen between these calls; else "undecided".  A statistic, no proof.

        Parameters
        ----------
        loss : callable
            Batch -> mean loss, a scalar with a graph; without psi, in the mode (dropout, norms) it is trained in.
        batches : iterable
            At least two, of equal size; an epoch of them tells most, and all are taken: a forward and a backward each.
        remaining : int, optional
            Calls of `record` still to come; by default as many as there were.
        noise, safety : float
            As above, >= 0.

        Returns
        -------
        Settled
            Counts per layer, and the cost in batches.

        Raises
        ------
        TypeError, ValueError
            If an argument is out of its range, no psi has a bound per piece, or parameters are DTensors.
        RuntimeError
            If a gradient is not finite, or a stage of the optimizer has just begun.

        Notes
        -----
        Weights, ``grad``, random states and the optimizer stay as they are; running means of normalisation layers move
        if the model is in training mode.  The calls are not part of `state_dict`.
        """
        left = self._calls if remaining is None else remaining
        return self._pieces.state(loss, batches, self._calls, left, noise, safety)

    def _record(self, record: int) -> int:
        """An index that exists; negative ones count from the end."""
        if not -len(self) <= record < len(self):
            raise IndexError(f"record must be one of the {len(self)} records, got {record}")
        return record

    def _point(self, point: str | None) -> str:
        """The last of the points by default, w_hat if there is one."""
        if point is None:
            return self.points[-1]
        if point not in self.points:
            raise ValueError(f"point must be one of {self.points}, got {point!r}")
        return point

    def _rows(self, point: str) -> tuple[np.ndarray, np.ndarray]:
        """All records as an array of bits, (records, bytes), and one of ranks, (records, weights)."""
        bits = np.asarray(self._bits[point], dtype=np.uint8).reshape(len(self), self._fields[-1].stop)
        return bits, self._count_rows(point)[:, :, RANK]

    def _count_rows(self, point: str) -> np.ndarray:
        """All records' counts, (records, weights, 8)."""
        return np.asarray(self._counts[point], dtype=np.int64).reshape(len(self), len(self._fields), COUNTS)

    # -- plain data -------------------------------------------------------------------------------------------------

    def _head(self) -> dict[str, Any]:
        """What a saved tracker must share with the one that loads it."""
        weights = [[field.name, list(field.shape), field.planes] for field in self._fields]
        return {"weights": weights, "points": list(self.points), "unit": self.unit}

    def state_dict(self) -> dict[str, Any]:
        """The records as plain data and tensors, readable with ``torch.load(weights_only=True)``.

        Returns
        -------
        dict
            Weights, points, unit, calls, times and, under "records", tensors.
        """
        records = {}
        for point in self.points:
            records[f"{point}.bits"] = torch.from_numpy(self._rows(point)[0].copy())
            records[f"{point}.counts"] = torch.from_numpy(self._count_rows(point).copy())
        return {**self._head(), "calls": self._calls, "times": list(self.times), "records": records}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over the records of a tracker of the same weights; ``every`` stays this tracker's.

        Parameters
        ----------
        state : dict
            What `state_dict` gave.

        Raises
        ------
        ValueError
            If the state is not whole or of other weights, points or units; nothing is changed then.
        """
        head = self._head()
        expected = {*head, "calls", "times", "records"}
        if set(state) != expected:
            raise ValueError(f"state must have the keys {sorted(expected)}, got {sorted(state)}")
        for key, mine in head.items():
            if state[key] != mine:
                raise ValueError(f"state is of other {key}: {state[key]!r}, here {mine!r}")
        times, calls = [int(time) for time in state["times"]], int(state["calls"])
        if times != sorted(set(times)) or (times and not 1 <= times[0] <= times[-1] <= calls):
            raise ValueError(f"times must increase from at least 1 to at most calls = {calls}, got {times}")
        shapes: dict[str, tuple[int, ...]] = {}
        for point in self.points:
            shapes[f"{point}.bits"] = (len(times), self._fields[-1].stop)
            shapes[f"{point}.counts"] = (len(times), len(self._fields), COUNTS)
        found = {key: tuple(tensor.shape) for key, tensor in state["records"].items()}
        if found != shapes:
            raise ValueError(f"records must have the shapes {shapes}, got {found}")
        records = {key: tensor.cpu().numpy().copy() for key, tensor in state["records"].items()}
        self.times, self._calls = times, calls
        self._pieces = SettledPieces(self._optimizer)
        self._bits = {point: list(records[f"{point}.bits"]) for point in self.points}
        self._counts = {point: list(records[f"{point}.counts"]) for point in self.points}

    def save(self, path: str | Path) -> Path:
        """Write the records to one ``.npz`` file, atomically.

        Parameters
        ----------
        path : path
            The file; its folder is made if missing.

        Returns
        -------
        Path
            The file.
        """
        state = self.state_dict()
        arrays: dict[str, Any] = {key: tensor.numpy() for key, tensor in state.pop("records").items()}
        return write_atomically(path, lambda file: np.savez_compressed(file, head=json.dumps(state), **arrays))

    def load(self, path: str | Path) -> None:
        """Take over what `save` wrote; see `load_state_dict`.

        Parameters
        ----------
        path : path
            A file that `save` wrote.

        Raises
        ------
        ValueError
            If the file is something else, or its records are of other weights; nothing is changed then.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                arrays = dict(data)
            head = json.loads(str(arrays.pop("head")))
        except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} holds no records of a StructureTracker: {error}") from error
        self.load_state_dict({**head, "records": {key: torch.from_numpy(array) for key, array in arrays.items()}})

    def plot(self, target: str | os.PathLike[str] | Sequence[Any]) -> Path | None:
        """Draw sparsity (above) and flips (below) over the calls of `record`, for w and w_hat.

        Parameters
        ----------
        target : path, or two matplotlib axes
            Where to write the figure, in the format of the suffix; or the axes to draw on.

        Returns
        -------
        Path or None
            The file written, if any.
        """
        if not len(self):
            raise ValueError("there is no record yet: call `record` first")
        if isinstance(target, (str, os.PathLike)):
            from ramda_theory.drawing import new_figure, save_figure, style

            with style():
                figure = new_figure(6.0, 4.4)
                self._draw(*figure.subplots(2, 1, sharex=True))
            return save_figure(figure, Path(target))
        self._draw(*target)
        return None

    def _draw(self, sparsity: Any, flipped: Any) -> None:
        from ramda_theory.drawing import line_style

        curves = {level: self.curve(level) for level in ("group_sparsity", "low_rank_level")}
        levels = [level for level, curve in curves.items() if np.isfinite(curve).any()] or ["entry_sparsity"]
        labels = {"w": "$w$", "w_hat": r"$\hat{w}$"}
        for i, point in enumerate(self.points):
            for j, level in enumerate(levels):
                look = line_style(i + len(self.points) * j)
                label = f"{level.replace('_', ' ')} of {labels[point]}"
                sparsity.plot(self.times, self.curve(level, point), label=label, **look)
            flipped.plot(self.times, self.flips(point), label=f"flips of {labels[point]}", **line_style(i))
        sparsity.set(ylabel="share", ylim=(-0.02, 1.02))
        sparsity.legend()
        flipped.set(xlabel=self.unit, ylabel="pieces changed")
        flipped.xaxis.get_major_locator().set_params(integer=True)
        flipped.set_yscale("symlog", linthresh=1)
        most = max(1, *(int(self.flips(point).max()) for point in self.points))
        ticks = [0, *(unit * 10**k for k in range(len(str(most))) for unit in (1, 2, 5) if unit * 10**k <= most)]
        flipped.set_yticks(ticks, [str(tick) for tick in ticks])
        flipped.minorticks_off()
        flipped.set_ylim(0, None)
        flipped.legend()
