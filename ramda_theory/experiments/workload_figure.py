"""The figure of ``ramda-theory train --workload``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ramda_theory.drawing.style import line_style, new_figure, save_png, style
from ramda_theory.experiments.entrants import ENTRANTS

MARKERS = "os^DvPX*<>hpd"
"""With the colour one look per optimizer."""
DENSE = "#8c564b"
"""Colour of optimizers without a regularizer."""
WORST = 0.15
"""Metrics further than this share from the best, and than those of all chosen weights, lie outside the figure."""


def plot_run(result: Any, path: str | Path) -> Path:
    """Metric, level and flips of w and w_hat over the epochs.

    Parameters
    ----------
    result : WorkloadResult
    path : path
        Of the PNG, without its suffix.

    Returns
    -------
    Path
        The file.
    """
    history, plan = result.history, result.plan
    epochs = [row["epoch"] for row in history]
    structured = result.level is not None
    with style():
        figure = new_figure(4.6, 5.4 if structured else 2.4)
        axes = np.atleast_1d(figure.subplots(3 if structured else 1, 1, sharex=True))
        for suffix, name, look in (("", "$w$", line_style(1)), ("_hat", r"$\hat{w}$", line_style(0))):
            axes[0].plot(epochs, [row[f"metric{suffix}"] for row in history], label=name, **look)
            if structured:
                axes[1].plot(epochs, [row[f"level{suffix}"] for row in history], label=name, **look)
                axes[2].plot(epochs, [row[f"flips{suffix}"] for row in history], label=name, **look)
        axes[0].set(ylabel=f"{result.metric} (validation)", title=f"{Path(plan.workload).stem}, {plan.optimizer}")
        if structured:
            axes[1].set(ylabel=result.level.replace("_", " "), ylim=(-0.02, 1.02))
            axes[2].set(ylabel="pieces that changed")
            axes[2].set_yscale("symlog", linthresh=1)
            axes[2].set_ylim(0, None)
        for axis in axes:
            for milestone in plan.milestones:
                axis.axvline(milestone, color="#777777", linewidth=1.0, linestyle=":", zorder=1)
        axes[-1].set_xlabel("epoch (grey lines: a stage begins)" if plan.milestones else "epoch")
        axes[0].legend(loc="best")
    return save_png(figure, path)


def plot_contest(data: dict[str, Any], path: str | Path) -> Path:
    """Structure against the metric: weights tried (lines, validation), what was chosen on all seeds (dots, test).

    Parameters
    ----------
    data : dict
        "tuning", "rows", "metric", "higher_is_better" and "level", as `compare_workload` records them.
    path : path
        Of the PNG, without its suffix.

    Returns
    -------
    Path
        The file.
    """
    with style():
        figure = new_figure(7.2, 4.0)
        axes = figure.subplots(1, 1)
        shown: list[float] = []
        chosen: list[float] = []
        for row in data["rows"]:
            look, marker = entrant_style(row["optimizer"])
            tried = best_tried(data, row["optimizer"])
            tried = tried if len(tried) > 1 else []
            levels, values = [final.get("level", 0.0) for final in tried], [final["validation"] for final in tried]
            axes.plot(levels, values, alpha=0.6, linewidth=1.0, marker=marker, markersize=3, **look)
            seeds = [run["final"] for run in row["runs"] if "test" in run["final"]]
            tests = [final["test"] for final in seeds]
            levels = [final.get("level", 0.0) for final in seeds]
            axes.scatter(levels, tests, color=look["color"], marker=marker, label=row["optimizer"], s=30, zorder=3)
            shown += values + tests
            chosen += tests
        title = "every seed (test)"
        if len(chosen) < len(shown):
            title = f"small, lines: tried on one seed (validation); large: chosen, {title}"
        if shown:
            best = (max if data["higher_is_better"] else min)(shown)
            far = max([WORST * abs(best), *(abs(value - best) for value in chosen)])
            near = [value for value in shown if abs(value - best) <= far]
            room = 0.05 * (max(near) - min(near)) or 0.01 * abs(best)
            axes.set_ylim(min(near) - room, max(near) + room)
            if len(near) < len(shown):
                title += f"\noutside the figure: {len(shown) - len(near)} of {len(shown)}"
        else:
            title = "no run has a metric: all diverged"
        level = (data["level"] or "structure").replace("_", " ")
        axes.set(xlabel=f"{level} of the weights handed out", ylabel=data["metric"])
        axes.set_title(title)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    return save_png(figure, path)


def entrant_style(optimizer: str) -> tuple[dict[str, Any], str]:
    """Colour with dashes, and marker, of an optimizer: the same in every figure."""
    place = list(ENTRANTS).index(optimizer)
    look = line_style(place)
    return look if ENTRANTS[optimizer].structured else {**look, "color": DENSE}, MARKERS[place % len(MARKERS)]


def best_tried(data: dict[str, Any], optimizer: str) -> list[dict[str, Any]]:
    """The best final figures of every weight that an optimizer was tuned with, by their structure."""
    sign = 1.0 if data["higher_is_better"] else -1.0
    best: dict[float, dict[str, Any]] = {}
    for each in data["tuning"]:
        plan, final = each["plan"], each["final"]
        if plan["optimizer"] == optimizer and "validation" in final:
            key = plan["weight"] or plan["lr"]  # without a weight every learning rate is shown
            if key not in best or sign * final["validation"] > sign * best[key]["validation"]:
                best[key] = final
    return sorted(best.values(), key=lambda final: (final.get("level", 0.0), final["validation"]))
