"""The figure of ``ramda-theory converge``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ramda_theory.drawing.style import line_style, new_figure, save_png, style


def plot_convergence(runs: Sequence[Any], path: str | Path) -> Path:
    """Objective gap and dist(0, dF) of every run; below, for each dual averaging run, the three terms of (28).

    Parameters
    ----------
    runs : sequence of ConvergeRun
        What `converge` returned; the terms of at most four are drawn.
    path : path
        Of the PNG, without its suffix.

    Returns
    -------
    Path
        The file.
    """
    dual = [entry for entry in runs if "model_error" in entry.metrics][:4]
    with style():
        figure = new_figure(7.2, 5.6 if dual else 3.2)
        parts = figure.subfigures(2, 1, height_ratios=[1.25, 1.0]) if dual else [figure]
        gap_axes, distance_axes = parts[0].subplots(1, 2)
        for index, entry in enumerate(runs):
            look = line_style(index) | {
                "linewidth": 1.4,
                "label": f"{entry.setting.method}: {entry.setting.short_label}",
            }
            steps = entry.metrics["step"]
            gap_axes.loglog(steps, np.maximum(entry.gap, 1e-16), **look)
            distance_axes.loglog(steps, np.maximum(entry.metrics["stationarity"], 1e-16), **look)
        gap_axes.set(xlabel="iteration", ylabel=r"$F(\hat{w}) - F^\star$", title="Objective gap")
        distance_axes.set(xlabel="iteration", ylabel=r"dist$(0, \partial F(\hat{w}))$", title="Stationarity")
        parts[0].legend(*gap_axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        if dual:
            term_axes = np.atleast_1d(parts[1].subplots(1, len(dual), sharey=True))
            for axes, entry in zip(term_axes, dual, strict=True):
                draw_error_terms(axes, entry)
            term_axes[0].set_ylabel("terms of (28)")
            parts[1].legend(*term_axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return save_png(figure, path)


def draw_error_terms(axes: Any, entry: Any) -> None:
    """dist(0, dF(What)) and the three terms of (28) that bound it.

    Parameters
    ----------
    axes : matplotlib axes
        To draw on.
    entry : ConvergeRun
        Of a dual averaging method.
    """
    metrics = entry.metrics
    terms = {
        "stationarity": r"dist$(0, \partial F(\hat{w}))$",
        "model_error": r"$\|\nabla f(\hat{w}) - V/\alpha\|$",
        "metric_error": r"$\|P(\hat{w} - w_0)\|/\alpha$",
        "subproblem_error": r"residual of (7) $/\alpha$ (off the scale if exact)",
    }
    for index, (name, label) in enumerate(terms.items()):
        values = np.where(metrics[name] > 0, metrics[name], np.nan)
        axes.loglog(metrics["step"], values, label=label, linewidth=1.3, **line_style(index))
    # Exact solutions leave a residual at rounding level, far below: keep the axis to the terms that matter.
    positive = np.concatenate([metrics[name][metrics[name] > 0] for name in list(terms)[:3]])
    floor = float(positive.min(initial=1.0))
    residual = metrics["subproblem_error"][np.isfinite(metrics["subproblem_error"])]
    lowest = floor if residual.max(initial=0.0) < 1e-6 * floor else max(1e-6 * floor, float(residual.min()))
    words = entry.setting.short_label.split(", ")
    lines = [", ".join(words[:2]), *([", ".join(words[2:])] if words[2:] else [])]
    axes.set(xlabel="iteration", title="\n".join([entry.setting.method, *lines]), ylim=(0.3 * lowest, None))
    axes.title.set_fontsize(7.5)
