"""``figures.json``: beside the figures of a folder, what made each of them."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ramda_theory.files import write_json

PACKAGES = ("numpy", "scipy", "torch", "matplotlib", "ramda_theory")


def record_figure(
    out: str | Path, stem: str, *, command: str, seeds: Sequence[int] | str, data: str | dict[str, Any]
) -> None:
    """Enter a figure in the ``figures.json`` of its folder, in the place of an older entry of that stem.

    Parameters
    ----------
    out : path
        Folder of the figure.
    stem : str
        Name of the figure's files without their suffixes.
    command : str
        What to type in the root of the repository, with ``--out`` and a folder of the reader's choice; see `typed`.
    seeds : sequence of int or str
        Of the random numbers behind the figure, or where they are written.
    data : str or dict
        The numbers behind the figure, or the name of the JSON beside it that holds them.

    Raises
    ------
    ValueError
        If ``figures.json`` is there and is not what this function writes.
    """
    path = Path(out) / "figures.json"
    entries: dict[str, Any] = {}
    if path.exists():
        try:
            entries = dict(json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a list of figures by name: {error}") from error
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    entries[stem] = {
        "command": command,
        "seeds": seeds if isinstance(seeds, str) else list(seeds),
        "versions": versions,
        "data": data,
    }
    write_json(path, dict(sorted(entries.items())))


def typed(program: str, arguments: Sequence[str], *, without: Sequence[str] = ()) -> str:
    """A command line as one types it, without ``--out FOLDER`` and the flags that do not change the result."""
    kept: list[str] = []
    rest = iter(arguments)
    for word in rest:
        if word == "--out":
            next(rest, None)
        elif not word.startswith("--out=") and word not in without:
            kept.append(word)
    return " ".join([program, *map(shlex.quote, kept)])
