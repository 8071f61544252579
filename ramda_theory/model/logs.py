"""Where a tracker's numbers can be written: a CSV file, TensorBoard, wandb."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from ramda_theory.files import write_atomically

Sink: TypeAlias = Callable[[int, dict[str, float]], Any]
"""Takes the call and the scalars of a record."""


def sink_of(target: Any, calls: int) -> Sink:
    """A function that writes to ``target``; what a CSV file says of calls after ``calls`` is dropped."""
    if isinstance(target, (str, os.PathLike)):
        path = Path(target)
        if path.suffix != ".csv":
            raise ValueError(f"a file to log to must end in .csv, got {path}")
        return CsvLog(path, calls)
    if callable(getattr(target, "add_scalar", None)):

        def to_writer(call: int, scalars: dict[str, float]) -> None:
            for name, value in scalars.items():
                target.add_scalar(name, value, call)

        return to_writer
    if callable(getattr(target, "log", None)):
        return lambda call, scalars: target.log(scalars, step=call)
    if callable(target):
        sink: Sink = target
        return sink
    raise TypeError(f"target must be a .csv path, a SummaryWriter, a wandb run or a function, got {target!r}")


class CsvLog:
    """Rows of "call" and scalars in a file.

    Parameters
    ----------
    path : Path
    calls : int
        Rows of later calls, which a run that is gone on with will write again, are dropped; 0 begins anew.
    """

    def __init__(self, path: Path, calls: int) -> None:
        self.path = path
        rows: list[dict[str, str]] = []
        if calls and path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if int(row["call"]) <= calls]
        self._names = list(rows[0]) if rows else []
        text = io.StringIO(newline="")
        if rows:
            writer = csv.DictWriter(text, self._names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        write_atomically(path, lambda file: file.write(text.getvalue().encode()))

    def __call__(self, call: int, scalars: dict[str, float]) -> None:
        row = {"call": call, **scalars}
        with self.path.open("a", newline="", encoding="utf-8") as file:
            if not self._names:
                self._names = list(row)
                file.write(",".join(self._names) + "\n")
            file.write(",".join(str(row.get(name, "")) for name in self._names) + "\n")
