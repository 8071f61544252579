"""The figure of ``ramda-theory validate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ramda_theory.drawing.style import COLOURS, new_figure, save_png, style
from ramda_theory.extras import needs

MARKS = "osD^v"
COLUMNS = 4


def plot_validation(cases: Sequence[Any], path: str | Path) -> Path:
    """Error against iterations, one panel for each solver.

    Colours and lines are tolerances of (7), marks are condition numbers of the metric; open marks are not called
    solved.  With nonconvex psi a solved point may be another stationary point, far from the reference.

    Parameters
    ----------
    cases : sequence of Case
        What `validate` returned.
    path : path
        Of the PNG, without its suffix.

    Returns
    -------
    Path
        The file.
    """
    with needs("experiments"):
        from matplotlib.lines import Line2D

    solvers = list(dict.fromkeys(case.solver for case in cases))
    conditions = list(dict.fromkeys(condition(case) for case in cases))
    colours = dict(
        zip(sorted({case.tolerance for case in cases}, reverse=True), (COLOURS[1], COLOURS[0]), strict=False)
    )
    rows = -(-(len(solvers) + 1) // COLUMNS)  # one place is the legend's
    with style():
        figure = new_figure(7.2, 0.4 + 2.1 * rows)
        panels = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
        for axes, solver in zip(panels.flat, solvers, strict=False):
            own = [case for case in cases if case.solver == solver]
            for tolerance, colour in colours.items():
                axes.axhline(tolerance, color=colour, linewidth=1.0, linestyle="--", zorder=1)
                for mark, value in zip(MARKS, conditions, strict=False):
                    group = [case for case in own if case.tolerance == tolerance and condition(case) == value]
                    draw(axes, group, mark, colour)
            axes.set(xscale="log", yscale="log", title=solver)
            axes.tick_params(labelbottom=True)
        for axes in panels[:, 0]:
            axes.set_ylabel("relative error\nto the reference")
        for axes in list(panels.flat)[len(solvers) :]:
            axes.set_axis_off()
        for column in range(COLUMNS):
            lowest = max(row for row in range(rows) if panels[row, column].axison)
            panels[lowest, column].set_xlabel("iterations (0 drawn at 0.7)", fontsize=7.5)
        grey: dict[str, Any] = {"color": "#777777", "linestyle": "none", "markersize": 4}
        handles = [
            *(
                Line2D([], [], color=c, linestyle="--", label=f"tolerance of the residual: {t:.0e}")
                for t, c in colours.items()
            ),
            *(
                Line2D([], [], marker=mark, label=f"max P / min P: about {value:g}", **grey)
                for mark, value in zip(MARKS, conditions, strict=False)
            ),
            Line2D([], [], marker="o", label="called solved", **grey),
            Line2D([], [], marker="o", markerfacecolor="none", label="not called solved", **grey),
        ]
        panels.flat[-1].legend(handles=handles, loc="center left", bbox_to_anchor=(-0.1, 0.5), fontsize=7)
    return save_png(figure, path)


def condition(case: Any) -> float:
    """The condition number of the metric, from the name of the case."""
    return float(case.name.rpartition(" ")[2])


def draw(axes: Any, cases: Sequence[Any], mark: str, colour: str) -> None:
    """Points of one tolerance and condition number; open where the answer is not called solved."""
    axes.scatter(
        [max(case.iterations, 0.7) for case in cases],
        [max(case.error, 1e-17) for case in cases],
        s=11,
        marker=mark,
        edgecolors=colour,
        facecolors=[colour if case.status == "solved" else "none" for case in cases],
        linewidths=0.7,
        zorder=2,
    )
