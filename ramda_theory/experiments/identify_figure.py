"""The figure of ``ramda-theory identify``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ramda_theory.drawing.style import line_style, new_figure, save_png, style
from ramda_theory.extras import needs
from ramda_theory.structure import Pattern, Structure

if TYPE_CHECKING:
    from ramda_theory.problems import Problem


def worst_in_bins(values: np.ndarray, bins: int = 250) -> tuple[np.ndarray, np.ndarray]:
    """Largest value in each of at most ``bins`` windows of steps 1, 2, ..., at the windows' last steps.

    Parameters
    ----------
    values : array
        A value per step.
    bins : int
        Windows, at least 1.

    Returns
    -------
    steps : array of int
        The last of each window, counted from 1.
    worst : array
        The largest value of each window.
    """
    width = max(1, math.ceil(len(values) / bins))
    starts = np.arange(0, len(values), width)
    return np.minimum(starts + width, len(values)), np.maximum.reduceat(values, starts)


def plot_identification(problem: Problem, runs: Sequence[Any], path: str | Path, most: int = 6) -> Path:
    """Structure error and objective gap over iterations for one seed, and the structures at the end of the run.

    Of the runs of the first seed, ``most`` are drawn: the best setting of each method by T0, then the others in order.

    Parameters
    ----------
    problem : Problem
        The one that was solved.
    runs : sequence of IdentifyRun
        What `identify` returned.
    path : path
        Of the PNG, without its suffix.
    most : int
        Runs drawn, at least 1.

    Returns
    -------
    Path
        The file.
    """
    shown = choose_shown(runs, most)
    with style():
        figure = new_figure(7.2, 5.6)
        top, bottom = figure.subfigures(2, 1, height_ratios=[1.75, 1.0])
        error_axes, gap_axes = top.subplots(1, 2)
        noun = "pixels" if problem.name == "digits" else "pieces"
        for index, entry in enumerate(shown):
            look = line_style(index) | {"linewidth": 1.4}
            error_axes.plot(*worst_in_bins(entry.record.structures_hat.distances(entry.target)), **look)
            metrics = entry.record.metrics
            if "objective" not in metrics:  # diverged before it was measured
                continue
            gap = np.maximum(metrics["objective"] - entry.reference.objective, 1e-16)
            gap[gap > 1e6] = np.nan  # a diverging run leaves the picture
            gap_axes.plot(metrics["step"], gap, label=f"{entry.setting.method}: {entry.setting.short_label}", **look)
            if entry.w_hat.time is not None:
                error_axes.plot(entry.w_hat.time, 0, marker="o", markersize=4.5, color=look["color"], clip_on=False)
        error_axes.set(
            xlabel="iteration",
            ylabel=f"{noun} unlike the optimum's",
            title="Structure error of $\\hat{w}$ (dot: right from here on)",
            ylim=(0, None),
        )
        error_axes.set_yscale("symlog", linthresh=2, linscale=0.6)
        most_wrong = max(int(entry.record.structures_hat.distances(entry.target).max()) for entry in shown)
        ticks = [tick for tick in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= max(most_wrong, 1)]
        error_axes.set_yticks(ticks, [str(tick) for tick in ticks])
        error_axes.minorticks_off()
        gap_axes.set(xlabel="iteration", ylabel=r"$F(\hat{w}) - F^\star$", title="Objective gap", yscale="log")
        top.legend(*gap_axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        reference = shown[0].reference
        panels: list[tuple[str, Structure]] = [
            ("known optimum" if reference.certified else "reference", reference.structure)
        ]
        panels += [(short_name(shown, entry), entry.record.structures_hat[-1]) for entry in shown]
        draw_structures(bottom, panels, reference.structure, image=problem.name == "digits")
    return save_png(figure, path)


def choose_shown(runs: Sequence[Any], most: int) -> list[Any]:
    """Of the first seed's runs: each method's best by T0, each method's first, then the rest; at most ``most``.

    Parameters
    ----------
    runs : sequence of IdentifyRun
        What `identify` returned.
    most : int
        At least 1.

    Returns
    -------
    list of IdentifyRun
        In the order of ``runs``.
    """
    seed_runs = [entry for entry in runs if entry.seed == runs[0].seed]
    by_method: dict[str, list[Any]] = {}
    for entry in seed_runs:
        by_method.setdefault(entry.setting.method, []).append(entry)
    best = [min(group, key=lambda e: (e.w_hat.time or math.inf, e.w_hat.final_error)) for group in by_method.values()]
    ranked = [*best, *(group[0] for group in by_method.values()), *seed_runs]
    chosen = list(dict.fromkeys(map(id, ranked)))[:most]
    return [entry for entry in seed_runs if id(entry) in chosen]


def short_name(shown: Sequence[Any], entry: Any) -> str:
    """The method, with what tells it from the other shown settings of the same method.

    Parameters
    ----------
    shown : sequence of IdentifyRun
        All that are drawn.
    entry : IdentifyRun
        One of them.

    Returns
    -------
    str
    """
    method: str = entry.setting.method
    peers = [other for other in shown if other.setting.method == method]
    if len(peers) == 1:
        return method
    labels = [other.setting.short_label.split(", ") for other in peers]
    shared = set.intersection(*map(set, labels))
    own = [word for word in entry.setting.short_label.split(", ") if word not in shared]
    return "\n".join([entry.setting.method, *own[-2:]])


def draw_structures(
    figure: Any,
    panels: Sequence[tuple[str, Structure]],
    target: Structure,
    image: bool,
    *,
    rows: int = 1,
    title: str = "of $\\hat{w}$ at the end of the run",
) -> None:
    """The structures side by side: right and wrong pieces of a pattern, or the rank in words.

    Parameters
    ----------
    figure : matplotlib figure or subfigure
    panels : sequence of (name, structure)
    target : Structure
        What is right.
    image : bool
        Whether the pieces are the pixels of a square image.
    rows : int
        Rows of panels.
    title : str
        What is shown, continuing "pixels" or "pieces".
    """
    with needs("experiments"):
        from matplotlib.colors import ListedColormap
        from matplotlib.patches import Patch

    # 0 rightly zero, 1 rightly nonzero, 2 wrongly nonzero, 3 wrongly zero (or of the wrong sign)
    colours = ["#ffffff", "#4d4d4d", "#E69F00", "#56B4E9"]
    grid_axes = figure.subplots(rows, math.ceil(len(panels) / rows), squeeze=False).ravel()
    for axis in grid_axes[len(panels) :]:
        axis.set_axis_off()
    for axis, (name, structure) in zip(grid_axes, panels, strict=False):
        axis.set_title(name, fontsize=7.5)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(False)
        for spine in axis.spines.values():
            spine.set_visible(True)
            spine.set_color("#999999")
        if not isinstance(structure, Pattern) or not isinstance(target, Pattern):
            axis.text(0.5, 0.5, f"rank {structure.count}", ha="center", va="center", transform=axis.transAxes)
            continue
        own, right = structure.pattern.ravel(), target.pattern.ravel()
        verdict = np.where(own == right, (right != 0).astype(int), np.where(own != 0, 2, 3))
        columns = math.isqrt(own.size) if image else max(1, math.ceil(math.sqrt(own.size)))
        padded = np.full(math.ceil(own.size / columns) * columns, 0)
        padded[: own.size] = verdict
        grid = padded.reshape(-1, columns)
        axis.imshow(grid, cmap=ListedColormap(colours), vmin=-0.5, vmax=3.5, interpolation="nearest")
        for value, mark in ((2, "+"), (3, "x")):
            down, across = np.nonzero(grid == value)
            axis.plot(across, down, mark, color="black", markersize=4, markeredgewidth=0.8)
        axis.set_xlabel(f"{structure.count} nonzero\n{int(np.count_nonzero(own != right))} wrong", fontsize=7.5)
    if isinstance(target, Pattern):
        names = ("rightly zero", "rightly nonzero", "wrongly nonzero (+)", "wrongly zero (x)")
        handles = [Patch(facecolor=c, edgecolor="#999999", label=n) for c, n in zip(colours, names, strict=True)]
        noun = "pixels" if image else "pieces"
        figure.legend(handles=handles, loc="outside lower center", ncols=4, title=f"{noun} {title}")
