"""Figures, drawn from records only.  Colours tell apart in grey and for the colour-blind; line styles repeat them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ramda_theory.files import write_atomically
from ramda_theory.structure import Pattern, Structure

if TYPE_CHECKING:
    from ramda_theory.commands.converge import ConvergeRun
    from ramda_theory.commands.identify import IdentifyRun
    from ramda_theory.commands.train import TrainResult
    from ramda_theory.commands.validate import Case
    from ramda_theory.problems import Problem

# Okabe & Ito's palette, in an order whose lightness alternates.
COLOURS = ("#0072B2", "#E69F00", "#000000", "#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#8C8C8C")
DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (8, 3)))

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "savefig.dpi": 200,
    "figure.constrained_layout.use": True,
}


def new_figure(width: float, height: float):
    """A matplotlib figure in the house style, drawn without a screen."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        return Figure(figsize=(width, height), layout="constrained")


def style():
    """A context in which axes are made and drawn in the house style."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def save_figure(figure, path: str | Path) -> Path:
    """Write a figure atomically, in the format of its suffix (PNG, PDF); the file holds no date."""
    path = Path(path)
    kind = path.suffix.lstrip(".") or "png"
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind, {})
    with style():
        return write_atomically(path, lambda file: figure.savefig(file, format=kind, metadata=metadata))


def line_style(index: int) -> dict[str, Any]:
    """Colour and dashes of the index-th curve."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}


def worst_in_bins(values: np.ndarray, bins: int = 250) -> tuple[np.ndarray, np.ndarray]:
    """Largest value in each of at most ``bins`` windows of steps 1, 2, ..., at the windows' last steps."""
    width = max(1, math.ceil(len(values) / bins))
    starts = np.arange(0, len(values), width)
    return np.minimum(starts + width, len(values)), np.maximum.reduceat(values, starts)


def plot_identification(problem: Problem, runs: Sequence[IdentifyRun], path: str | Path, most: int = 6) -> Path:
    """Structure error and objective gap over iterations for one seed, and the structures at the end of the run.

    Of the runs of the first seed, ``most`` are drawn: the best setting of each method by T0, then the others in order.
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
        panels: list[tuple[str, Structure]] = [("known optimum", shown[0].target)]
        panels += [(short_name(shown, entry), entry.record.structures_hat[-1]) for entry in shown]
        draw_structures(bottom, panels, shown[0].target, image=problem.name == "digits")
    return save_figure(figure, path)


def choose_shown(runs: Sequence[IdentifyRun], most: int) -> list[IdentifyRun]:
    """Of the first seed's runs: each method's best by T0, each method's first, then the rest; at most ``most``."""
    seed_runs = [entry for entry in runs if entry.seed == runs[0].seed]
    by_method: dict[str, list[IdentifyRun]] = {}
    for entry in seed_runs:
        by_method.setdefault(entry.setting.method, []).append(entry)
    best = [min(group, key=lambda e: (e.w_hat.time or math.inf, e.w_hat.final_error)) for group in by_method.values()]
    ranked = [*best, *(group[0] for group in by_method.values()), *seed_runs]
    chosen = list(dict.fromkeys(map(id, ranked)))[:most]
    return [entry for entry in seed_runs if id(entry) in chosen]


def short_name(shown: Sequence[IdentifyRun], entry: IdentifyRun) -> str:
    """The method, with what tells it from the other shown settings of the same method."""
    peers = [other for other in shown if other.setting.method == entry.setting.method]
    if len(peers) == 1:
        return entry.setting.method
    labels = [other.setting.short_label.split(", ") for other in peers]
    shared = set.intersection(*map(set, labels))
    own = [word for word in entry.setting.short_label.split(", ") if word not in shared]
    return "\n".join([entry.setting.method, *own[-2:]])


def draw_structures(figure, panels: Sequence[tuple[str, Structure]], target: Structure, image: bool) -> None:
    """The structures side by side: right and wrong pieces of a pattern, or the rank in words."""
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Patch

    # 0 rightly zero, 1 rightly nonzero, 2 wrongly nonzero, 3 wrongly zero (or of the wrong sign)
    colours = ["#ffffff", "#4d4d4d", "#E69F00", "#56B4E9"]
    axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for axis, (name, structure) in zip(axes, panels, strict=True):
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
            rows, cols = np.nonzero(grid == value)
            axis.plot(cols, rows, mark, color="black", markersize=4, markeredgewidth=0.8)
        axis.set_xlabel(f"{structure.count} nonzero\n{int(np.count_nonzero(own != right))} wrong", fontsize=7.5)
    if isinstance(target, Pattern):
        names = ("rightly zero", "rightly nonzero", "wrongly nonzero (+)", "wrongly zero (x)")
        handles = [Patch(facecolor=c, edgecolor="#999999", label=n) for c, n in zip(colours, names, strict=True)]
        noun = "pixels" if image else "pieces"
        figure.legend(
            handles=handles, loc="outside lower center", ncols=4, title=f"{noun} of $\\hat{{w}}$ at the end of the run"
        )


def plot_convergence(runs: Sequence[ConvergeRun], path: str | Path) -> Path:
    """Objective gap and dist(0, dF) of every run; below, for each dual averaging run, the three terms of (28)."""
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
    return save_figure(figure, path)


def draw_error_terms(axes, entry: ConvergeRun) -> None:
    """dist(0, dF(What)) and the three terms of (28) that bound it."""
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
    floor = min(np.nanmin(np.where(metrics[name] > 0, metrics[name], np.nan)) for name in list(terms)[:3])
    residual = metrics["subproblem_error"]
    lowest = floor if np.nanmax(residual) < 1e-6 * floor else max(1e-6 * floor, float(np.nanmin(residual)))
    words = entry.setting.short_label.split(", ")
    lines = [", ".join(words[:2]), *([", ".join(words[2:])] if words[2:] else [])]
    axes.set(xlabel="iteration", title="\n".join([entry.setting.method, *lines]), ylim=(0.3 * lowest, None))
    axes.title.set_fontsize(7.5)


def plot_validation(cases: Sequence[Case], path: str | Path) -> Path:
    """Error against iterations of every solver, one panel for each spread of the metric; open marks are not solved."""
    spreads = list(dict.fromkeys(case.name.rpartition(" ")[2] for case in cases))
    solvers = list(dict.fromkeys(case.solver for case in cases))
    marks = "osD^v*P"
    with style():
        figure = new_figure(7.2, 3.2)
        panels = np.atleast_1d(figure.subplots(1, len(spreads), sharey=True))
        for axes, spread in zip(panels, spreads, strict=True):
            for index, solver in enumerate(solvers):
                own = [case for case in cases if case.solver == solver and case.name.endswith(f" {spread}")]
                colour = COLOURS[index % len(COLOURS)]
                for solved in (True, False):
                    group = [case for case in own if (case.status == "solved") == solved]
                    axes.scatter(
                        [max(case.iterations, 0.7) for case in group],
                        [max(case.error, 1e-17) for case in group],
                        s=16,
                        marker=marks[index % len(marks)],
                        edgecolors=colour,
                        facecolors=colour if solved else "none",
                        linewidths=0.9,
                        label=solver if solved else None,
                        clip_on=False,
                    )
            axes.set(xscale="log", yscale="log", xlabel="iterations (0 drawn at 0.7)", title=f"spread of P: {spread}")
        panels[0].set_ylabel("relative error to the reference")
        handles = {
            solver: handle for axes in panels for handle, solver in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return save_figure(figure, path)


def plot_training(result: TrainResult, path: str | Path) -> Path:
    """Accuracy, weighted group sparsity of w and w_hat, and structure flips over the epochs."""
    history, settings = result.history, result.settings
    epochs = [row["epoch"] for row in history]
    sparse = history[-1]["sparsity"] is not None
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
            for milestone in settings.milestones or ():
                axis.axvline(milestone, color="#999999", linewidth=0.8, zorder=0)
        axes[-1].set_xlabel("epoch (grey lines: a stage begins)")
        axes[0].legend(loc="lower right")
    return save_figure(figure, path)


def plot_comparison(tuning: Sequence[TrainResult], rows: Sequence[dict[str, Any]], path: str | Path) -> Path:
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
            final_axes.axhline(
                level, color="#777777", linewidth=0.8, linestyle=DASHES[index + 1], label=row["optimizer"]
            )
        floor = min(run["final"]["test"] for row in rows for run in row["runs"])
        grid_axes.set(
            xlabel="weighted group sparsity",
            ylabel="validation accuracy",
            title="All weights, one seed",
            xlim=(-0.02, 1.02),
        )
        grid_axes.legend(loc="lower left")
        final_axes.set(xlabel="weighted group sparsity", ylabel="test accuracy", title="Tuned weight, all seeds")
        final_axes.set(xlim=(-0.02, 1.02), ylim=(floor - 0.01, 1.002))
        final_axes.legend(loc="lower left", title="no regularizer (mean)")
    return save_figure(figure, path)
