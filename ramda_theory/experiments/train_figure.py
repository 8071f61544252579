"""The figures of ``ramda-theory train``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ramda_theory.drawing.style import COLOURS, DASHES, line_style, new_figure, save_both, style

if TYPE_CHECKING:
    from ramda_theory.experiments.train import TrainResult


def plot_training(result: TrainResult, path: str | Path) -> list[Path]:
    """Accuracy, weighted group sparsity of w and w_hat, and structure flips over the epochs."""
    history, settings = result.history, result.settings
    epochs = [row["epoch"] for row in history]
    sparse = history[-1]["sparsity"] is not None
    milestones = settings.milestones or ()
    with style():
        figure = new_figure(4.6, 5.4 if sparse else 2.4)
        axes = np.atleast_1d(figure.subplots(3 if sparse else 1, 1, sharex=True))
        curves = (("", "$w$", line_style(1)), ("_hat", r"$\hat{w}$", line_style(0)))
        for suffix, name, look in curves:
            axes[0].plot(epochs, [row[f"accuracy{suffix}"] for row in history], label=name, **look)
            if sparse:
                axes[1].plot(epochs, [row[f"sparsity{suffix}"] for row in history], label=name, **look)
                axes[2].plot(epochs, [row[f"flips{suffix}"] for row in history], label=name, **look)
        axes[0].set(
            ylabel="validation accuracy", title=f"{settings.optimizer}, {settings.model}, weight {settings.weight:g}"
        )
        axes[0].set_ylim(max(0.0, min(row["accuracy_hat"] for row in history[len(history) // 4 :]) - 0.02), 1.005)
        if sparse:
            axes[1].set(ylabel="weighted group sparsity", ylim=(-0.02, 1.02))
            axes[2].set(ylabel="groups that changed")
            axes[2].set_yscale("symlog", linthresh=1)
            axes[2].set_ylim(0, None)
        for axis in axes:
            for milestone in milestones:
                axis.axvline(milestone, color="#777777", linewidth=1.0, linestyle=":", zorder=1)
        axes[-1].set_xlabel(r"epoch (grey lines: a stage begins, at $\hat{w} = w$)" if milestones else "epoch")
        axes[0].legend(loc="lower right")
    return save_both(figure, path)


def plot_comparison(tuning: Sequence[TrainResult], rows: Sequence[dict[str, Any]], path: str | Path) -> list[Path]:
    """Accuracy against weighted group sparsity: the grid of weights on one seed, and the tuned runs on all seeds."""
    marks = "osD^"
    with style():
        figure = new_figure(7.2, 3.3)
        grid_axes, final_axes = figure.subplots(1, 2)
        names = list(dict.fromkeys(result.settings.optimizer for result in tuning))
        for index, name in enumerate(names):
            look = {"color": COLOURS[index], "marker": marks[index % len(marks)], "markersize": 4}
            own = sorted((r for r in tuning if r.settings.optimizer == name), key=lambda r: r.settings.weight)
            line = line_style(index)["linestyle"]
            sparsity, accuracy = ([r.final[key] for r in own] for key in ("sparsity", "validation"))
            grid_axes.plot(sparsity, accuracy, linestyle=line, linewidth=1.1, label=name, **look)
            row = next(row for row in rows if row["optimizer"] == name)
            finals = [run["final"] for run in row["runs"]]
            points = [final["sparsity"] for final in finals], [final["test"] for final in finals]
            final_axes.plot(*points, linestyle="none", **look)
        for index, row in enumerate(row for row in rows if "sparsity" not in row):
            level = row["test"]["mean"]
            final_axes.axhline(level, color="#777777", linewidth=0.8, linestyle=DASHES[index], label=row["optimizer"])
        tops = [result.final["validation"] for result in tuning]
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
    return save_both(figure, path)
