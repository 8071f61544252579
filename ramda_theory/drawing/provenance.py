"""The JSON beside a figure: what made it, and the numbers behind it."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ramda_theory.files import write_json

PACKAGES = ("numpy", "scipy", "torch", "matplotlib", "ramda_theory")
"""Packages whose versions are recorded."""

DIGITS = 8
"""Significant digits of the numbers in an array."""


def record_figure(
    out: str | Path, name: str, *, command: str | None, seeds: Sequence[int] | str, data: list[Any] | dict[str, Any]
) -> Path:
    """Write ``name.json``, which belongs to the figure ``name.png`` of the same folder, atomically.

    Parameters
    ----------
    out : path
        Folder of the figure.
    name : str
        Name of the figure's files without their suffixes.
    command : str or None
        What to type in the root of the repository, with ``--out`` and a folder of the reader's choice, see
        `command_line`; None if the figure was made by a call from Python.
    seeds : sequence of int or str
        Of the random numbers behind the figure, or where they are written.
    data : list or dict
        The numbers behind the figure, as plain data.  Arrays of numbers are kept to `DIGITS` significant digits.

    Returns
    -------
    Path
        The file.  Its keys are "command", "seeds", "versions" and "data".

    Raises
    ------
    ValueError
        If ``data`` holds NaN or Inf.
    """
    return write_json(
        Path(out) / f"{name}.json",
        {
            "command": command,
            "seeds": seeds if isinstance(seeds, str) else list(seeds),
            "versions": {"python": platform.python_version()} | dict(installed(PACKAGES)),
            "data": rounded(data),
        },
    )


def installed(packages: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Name and version of the packages that are there."""
    for name in packages:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def rounded(data: Any) -> Any:
    """Plain data whose arrays of numbers have `DIGITS` significant digits; numbers that stand alone stay exact."""
    if isinstance(data, dict):
        return {key: rounded(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [float(f"{value:.{DIGITS}g}") if isinstance(value, float) else rounded(value) for value in data]
    return data


def command_line(program: str, arguments: Sequence[str], *, without: Sequence[str] = ()) -> str:
    """A command as one would type it again.

    Parameters
    ----------
    program : str
        What stands before the arguments.
    arguments : sequence of str
        As in `sys.argv`; ``--out FOLDER`` is left out.
    without : sequence of str
        Flags to leave out because they do not change the result.

    Returns
    -------
    str
        Quoted for a POSIX shell.
    """
    kept: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word == "--out":
            next(rest, None)
        elif not word.startswith("--out=") and word not in without:
            kept.append(word)
    return " ".join([program, *map(shlex.quote, kept)])
