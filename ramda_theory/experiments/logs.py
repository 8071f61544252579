"""Where the numbers of every epoch go: a CSV file or TensorBoard's event files."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from ramda_theory.extras import needs
from ramda_theory.files import write_atomically

KINDS = ("csv", "tensorboard")


def log(kinds: tuple[str, ...], out: Path, history: list[dict[str, Any]]) -> None:
    """Write the history: all of it as CSV, its last row to TensorBoard.

    Parameters
    ----------
    kinds : tuple of str
        Of `KINDS`.
    out : path
        Folder; ``history.csv`` and ``tensorboard/`` in it.
    history : list of dict
        A row per epoch.
    """
    if "csv" in kinds:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(history[-1]))
        writer.writeheader()
        writer.writerows(history)
        write_atomically(out / "history.csv", lambda file: file.write(text.getvalue().encode()))
    if "tensorboard" in kinds:
        with needs("workloads"):
            from torch.utils.tensorboard import SummaryWriter

        # a row that is written again after an interruption has the same step, and TensorBoard shows the later one
        with SummaryWriter(str(out / "tensorboard"), filename_suffix=f".{history[-1]['epoch']}") as events:  # type: ignore[no-untyped-call]
            for name, value in history[-1].items():
                if name != "epoch" and value is not None:
                    events.add_scalar(name, value, history[-1]["epoch"])  # type: ignore[no-untyped-call]
