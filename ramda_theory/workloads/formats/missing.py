"""The one line that says which data are expected where, their size and licence."""

from __future__ import annotations

from pathlib import Path

from ramda_theory.workloads.catalogue import CATALOGUE


class MissingData(ValueError):
    """Data that are not there, or are damaged.

    Parameters
    ----------
    data_set : str
        A key of `CATALOGUE`.
    folder : path
        Where they are expected.
    found : str
        What is wrong.
    """

    def __init__(self, data_set: str, folder: str | Path, found: str) -> None:
        entry = CATALOGUE[data_set]
        super().__init__(
            f"{found}; {entry.title} is expected in {folder}: {entry.layout} ({entry.size}, licence: {entry.licence}); "
            f"{entry.how(data_set, folder)}"
        )
