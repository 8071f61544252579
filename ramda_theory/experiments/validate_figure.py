"""The figure of ``ramda-theory validate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ramda_theory.drawing.style import COLOURS, new_figure, save_both, style

if TYPE_CHECKING:
    from ramda_theory.experiments.validate import Case


def plot_validation(cases: Sequence[Case], path: str | Path) -> list[Path]:
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
            axes.set(
                xscale="log",
                yscale="log",
                xlabel="iterations (0 is drawn at 0.7)",
                title=f"max P / min P: about {float(spread):g}",
            )
        panels[0].set_ylabel("relative error to the reference")
        handles = {
            solver: handle for axes in panels for handle, solver in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        told = "filled: called solved; open: not"
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, title=told)
    return save_both(figure, path)
