"""What a run leaves behind: structures after every step, measurements every few steps, inner solutions if inexact."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ramda_theory.diagnostics.trace import StructureTrace
from ramda_theory.files import write_atomically
from ramda_theory.subproblem import Solution
from ramda_theory.tables import to_pandas

if TYPE_CHECKING:
    import pandas


class Table:
    """Named columns of numbers that grow a row at a time.

    Parameters
    ----------
    columns : dict of str to list of float, optional
        Columns of one length, kept without a copy; none by default.
    """

    def __init__(self, columns: dict[str, list[float]] | None = None) -> None:
        self._columns = columns or {}

    def append(self, **row: float) -> None:
        """Add a row; every row has the same columns.

        Parameters
        ----------
        **row : float
            A number for every column; the first row names the columns.

        Raises
        ------
        ValueError
            If the row has other columns than the rows before it.
        """
        if self._columns and row.keys() != self._columns.keys():
            raise ValueError(f"a row must have the columns {sorted(self._columns)}, got {sorted(row)}")
        for name, value in row.items():
            self._columns.setdefault(name, []).append(float(value))

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._columns:
            raise KeyError(f"no column {name!r}; there are {sorted(self._columns)}")
        return np.asarray(self._columns[name])

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def __len__(self) -> int:
        return len(next(iter(self._columns.values()), []))

    @property
    def names(self) -> list[str]:
        """The columns."""
        return list(self._columns)

    def to_array(self) -> np.ndarray:
        """Rows by columns.

        Returns
        -------
        array of float
            Shape (rows, columns), columns in the order of `names`.
        """
        return np.asarray([self._columns[name] for name in self._columns], dtype=float).T

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a data frame, one column per name.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        MissingExtra
            If pandas is not installed.
        """
        return to_pandas([dict(zip(self._columns, row, strict=True)) for row in self.to_array().tolist()])

    @classmethod
    def from_array(cls, names: list[str], array: np.ndarray) -> Table:
        """Rebuild from `to_array` and `names`.

        Parameters
        ----------
        names : list of str
            Columns.
        array : array of float
            Shape (rows, columns).

        Returns
        -------
        Table
        """
        return cls({name: array[:, i].tolist() for i, name in enumerate(names)} if len(array) else None)


@dataclass
class Record:
    """The record of a run.

    Attributes
    ----------
    config : dict
        Plain data that says what was run.
    steps_per_epoch : int
    structures_hat, structures_w : StructureTrace
        Structure of What_t and of W_t after every step.
    metrics : Table
        Column "step" and what `measure` measured then; "seconds" is the time spent in gradients and steps so far.
    inner : Table
        A row for every step whose subproblem an inexact solver solved: "step", "tolerance", "residual", "iterations",
        "descent" (1 if Q did not increase).
    """

    config: dict[str, Any] = field(default_factory=dict)
    steps_per_epoch: int = 1
    structures_hat: StructureTrace = field(default_factory=StructureTrace)
    structures_w: StructureTrace = field(default_factory=StructureTrace)
    metrics: Table = field(default_factory=Table)
    inner: Table = field(default_factory=Table)

    def append_inner(self, step: int, solution: Solution) -> None:
        """Add a row to ``inner``.

        Parameters
        ----------
        step : int
            t.
        solution : Solution
            What the solver returned at that step.
        """
        self.inner.append(
            step=step,
            tolerance=solution.tolerance,
            residual=solution.residual,
            iterations=solution.iterations,
            descent=bool(solution.descent),
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The record as named arrays.

        Returns
        -------
        dict of str to array
            Arrays of numbers and strings, as ``numpy.savez`` takes them.
        """
        head = {
            "config": self.config,
            "steps_per_epoch": self.steps_per_epoch,
            "metrics": self.metrics.names,
            "inner": self.inner.names,
        }
        arrays = {
            "head": np.asarray(json.dumps(head)),
            "metrics": self.metrics.to_array(),
            "inner": self.inner.to_array(),
        }
        for name in ("structures_hat", "structures_w"):
            trace: StructureTrace = getattr(self, name)
            arrays.update({f"{name}.{key}": array for key, array in trace.to_arrays().items()})
        return arrays

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Record:
        """Rebuild a record from `to_arrays`'s data.

        Parameters
        ----------
        arrays : dict of str to array
            What `to_arrays` gave.

        Returns
        -------
        Record
        """
        head = json.loads(str(arrays["head"]))

        def trace(name: str) -> StructureTrace:
            prefix = f"{name}."
            return StructureTrace.from_arrays(
                {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
            )

        return cls(
            config=head["config"],
            steps_per_epoch=head["steps_per_epoch"],
            structures_hat=trace("structures_hat"),
            structures_w=trace("structures_w"),
            metrics=Table.from_array(head["metrics"], arrays["metrics"]),
            inner=Table.from_array(head["inner"], arrays["inner"]),
        )

    def save(self, path: str | Path) -> Path:
        """Write to one ``.npz`` file, atomically.

        Parameters
        ----------
        path : path
            The file; its folder is made if missing.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        OSError
            If it cannot be written; a file that was there stays.
        """
        arrays: dict[str, Any] = self.to_arrays()
        return write_atomically(path, lambda file: np.savez_compressed(file, **arrays))

    @classmethod
    def load(cls, path: str | Path) -> Record:
        """Read what `save` wrote.

        Parameters
        ----------
        path : path
            A file that `save` wrote.

        Returns
        -------
        Record
        """
        with np.load(path, allow_pickle=False) as data:
            return cls.from_arrays(dict(data))
