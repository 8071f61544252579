"""A subproblem of two variables, drawn: its level lines, the points that (7) accepts, and the paths of solvers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ramda_theory.drawing.style import line_style
from ramda_theory.subproblem import Subproblem


def draw_subproblem(
    axes: Any,
    problem: Subproblem,
    tolerances: Sequence[float],
    paths: Mapping[str, np.ndarray],
    limits: tuple[float, float, float, float],
    points: int = 301,
) -> None:
    """Draw a subproblem of two variables.

    Parameters
    ----------
    axes : matplotlib axes
    problem : Subproblem
        Its arrays have two entries, of any shape.
    tolerances : sequence of float
        For each, the points whose residual (7) is within it are shaded, the smaller the darker, and outlined.
    paths : mapping from name to array, shape (iterations, 2)
        Iterates, joined by lines.
    limits : (first, last, first, last)
        Of the two variables.
    points : int
        Grid points per variable.

    Raises
    ------
    ValueError
        If the subproblem does not have two variables.
    """
    if problem.anchor.size != 2:
        raise ValueError(f"the subproblem must have two variables, got {problem.anchor.size}")
    first, second = np.linspace(*limits[:2], points), np.linspace(*limits[2:], points)
    residual, value = np.empty((points, points)), np.empty((points, points))
    for column, x in enumerate(first):
        for row, y in enumerate(second):
            point = np.asarray([x, y]).reshape(problem.anchor.shape)
            residual[row, column], value[row, column] = problem.residual(point), problem.objective(point)
    levels = value.min() + np.ptp(value) * np.geomspace(1e-3, 1.0, 10)
    axes.contour(first, second, value, levels=levels, colors="#b0b0b0", linewidths=0.6, linestyles="solid")
    ordered = sorted(tolerances)
    shades = [str(grey) for grey in np.linspace(0.7, 0.9, len(ordered))]
    axes.contourf(first, second, residual, levels=[-1.0, *ordered], colors=shades)
    outlines = axes.contour(first, second, residual, levels=ordered, colors="black", linewidths=0.7)
    axes.clabel(outlines, fmt=lambda level: f"$\\epsilon$ = {level:g}", fontsize=7.5)
    for index, (name, path) in enumerate(paths.items()):
        path = np.asarray(path).reshape(len(path), 2)
        mark = {"marker": "os^D"[index % 4], "markersize": 4, "fillstyle": "none", "markeredgewidth": 0.9}
        axes.plot(*path.T, linewidth=1.1, label=name, **mark, **line_style(index))
    axes.set(xlim=limits[:2], ylim=limits[2:], xlabel="first variable", ylabel="second variable")
