"""The figure of ``ramda-theory train --compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ramda_theory.drawing.style import COLOURS, DASHES, line_style, new_figure, save_png, style


def plot_comparison(tuning: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], path: str | Path) -> Path:
    """Accuracy against weighted group sparsity: the grid of weights on one seed, and the tuned runs on all seeds.

    Parameters
    ----------
    tuning : sequence of dict
        A run of the grid each, as `compare` tuned: optimizer, weight, accuracy, sparsity.
    rows : sequence of dict
        An optimizer each: mean and standard deviation over the seeds.
    path : path
        Of the PNG, without its suffix.

    Returns
    -------
    Path
        The file.
    """
    marks = "osD^"
    with style():
        figure = new_figure(7.2, 3.3)
        grid_axes, final_axes = figure.subplots(1, 2)
        names = list(dict.fromkeys(run["settings"]["optimizer"] for run in tuning))
        for index, name in enumerate(names):
            look = {"color": COLOURS[index], "marker": marks[index % len(marks)], "markersize": 4}
            own = [run for run in tuning if run["settings"]["optimizer"] == name]
            own.sort(key=lambda run: run["settings"]["weight"])
            line = line_style(index)["linestyle"]
            sparsity, accuracy = ([run["final"][key] for run in own] for key in ("sparsity", "validation"))
            grid_axes.plot(sparsity, accuracy, linestyle=line, linewidth=1.1, label=name, **look)
            row = next(row for row in rows if row["optimizer"] == name)
            finals = [run["final"] for run in row["runs"]]
            points = [final["sparsity"] for final in finals], [final["test"] for final in finals]
            final_axes.plot(*points, linestyle="none", **look)
        for index, row in enumerate(row for row in rows if "sparsity" not in row):
            level = row["test"]["mean"]
            final_axes.axhline(level, color="#777777", linewidth=0.8, linestyle=DASHES[index], label=row["optimizer"])
        tops = [run["final"]["validation"] for run in tuning]
        lost = sum(top < max(tops) - 0.06 for top in tops)
        title = "All weights, one seed" + f"\n({lost} weights too large: below the axis)" * bool(lost)
        grid_axes.set(xlabel="weighted group sparsity", ylabel="validation accuracy", title=title)
        grid_axes.set(xlim=(-0.02, 1.02), ylim=(max(tops) - 0.06, max(tops) + 0.005))
        finals = [run["final"]["test"] for row in rows for run in row["runs"]]
        final_axes.set(xlabel="weighted group sparsity", ylabel="test accuracy", title="Tuned weight, all seeds")
        final_axes.set(xlim=(-0.02, 1.02), ylim=(min(finals) - 0.005, 1.0))
        handles, labels = grid_axes.get_legend_handles_labels()
        more = final_axes.get_legend_handles_labels()
        figure.legend(handles + more[0], labels + more[1], loc="outside lower center", ncols=4)
    return save_png(figure, path)
