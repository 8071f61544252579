"""``ramda-theory path``: the regularization path of a problem, its table and its figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ramda_theory.diagnostics import RegularizationPath, regularization_path
from ramda_theory.drawing.provenance import record_figure
from ramda_theory.experiments.settings import problem_named
from ramda_theory.tables import aligned


def path(
    problem: str = "digits",
    weights: Sequence[float] | None = None,
    pieces: int | None = None,
    *,
    out: str | Path | None = None,
    command: str | None = None,
) -> RegularizationPath:
    """Follow the path, and write ``path.png`` and ``path.json``.

    Parameters
    ----------
    problem : str
        A name of `ramda_theory.problems.PROBLEMS`.
    weights : sequence of float, optional
        As in `regularization_path`.
    pieces : int, optional
        Its ``target_pieces``.
    out : path, optional
        Folder for the files.
    command : str, optional
        What ``path.json`` names as the command that made it.

    Returns
    -------
    RegularizationPath

    Raises
    ------
    ValueError
        Unknown names, values out of range.
    """
    on = problem_named(problem, None)
    found = regularization_path(on, weights, target_pieces=pieces)
    if out is not None:
        from ramda_theory.experiments.path_figure import plot_path

        rows = [{**point.to_dict(), "gap": finite(point.to_dict()["gap"])} for point in found.points]
        record_figure(out, "path", command=command, seeds="none: nothing is drawn", data=rows)
        plot_path(on, found, Path(out) / "path")
    return found


def finite(number: float) -> float | None:
    """None for infinity."""
    return number if abs(number) < float("inf") else None


def table(found: RegularizationPath) -> str:
    """A row per weight."""
    rows: list[tuple[str, ...]] = [("lambda", "pieces", "norm", "F", "margin", "gap", "passes", "verdict")]
    rows += [
        (
            f"{row['weight']:.4g}",
            str(row["pieces"]),
            f"{row['norm']:.4g}",
            f"{row['objective']:.6g}",
            f"{row['margin']:.4f}",
            f"{row['gap']:.1e}",
            str(row["passes"]),
            row["verdict"],
        )
        for row in (point.to_dict() for point in found.points)
    ]
    return aligned(rows)
