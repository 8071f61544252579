"""The figure of ``ramda-theory path``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ramda_theory.drawing.style import line_style, new_figure, save_png, style

if TYPE_CHECKING:
    from ramda_theory.diagnostics import RegularizationPath
    from ramda_theory.problems import Problem


def plot_path(problem: Problem, found: RegularizationPath, path: str | Path) -> Path:
    """Sizes of the pieces over lambda; how many are nonzero; margin and duality gap of each point.

    Parameters
    ----------
    problem : Problem
    found : RegularizationPath
    path : path
        Of the PNG, without its suffix.

    Returns
    -------
    Path
    """
    rows = [point.to_dict() for point in found.points]
    weights = [row["weight"] for row in rows]
    sizes = np.array([piece_sizes(problem, point.certificate.point) for point in found.points])
    proved = np.array([row["verdict"].startswith("certified") for row in rows])
    size, count = names(problem)
    with style():
        figure = new_figure(7.2, 5.4)
        top, bottom = figure.subplots(2, 2)
        top[0].plot(weights, sizes, color="#4c72b0", linewidth=0.6, alpha=0.7)
        top[0].set(xscale="log", xlabel="lambda", ylabel=size)
        top[1].plot(weights, [row["pieces"] for row in rows], marker="o", markersize=3, **line_style(0))
        top[1].set(xscale="log", xlabel="lambda", ylabel=count)
        top[1].yaxis.get_major_locator().set_params(integer=True)
        bottom[0].plot(weights, [max(row["margin"], 1e-6) for row in rows], marker="o", markersize=3, **line_style(1))
        bottom[0].set(xscale="log", yscale="log", xlabel="lambda", ylabel="nondegeneracy margin")
        gaps = np.array([row["gap"] for row in rows])
        for mask, marker, label in ((proved, "o", "certified"), (~proved, "x", "not certified")):
            if np.any(mask):
                bottom[1].plot(np.array(weights)[mask], gaps[mask], marker, markersize=4, label=label)
        bottom[1].set(xscale="log", yscale="log", xlabel="lambda", ylabel="bound on F - min F")
        bottom[1].legend()
    return save_png(figure, path)


def names(problem: Problem) -> tuple[str, str]:
    """What the sizes of the pieces, and the number of nonzero ones, are called."""
    psi: Any = problem.regularizer
    if psi.needs_matrix:
        return "singular values", "rank"
    if hasattr(psi, "group_norms"):
        return "norm of each group", "nonzero groups"
    return "size of each entry", "nonzero entries"


def piece_sizes(problem: Problem, w: np.ndarray) -> np.ndarray:
    """Norms of the groups, singular values, or absolute values of the entries."""
    psi: Any = problem.regularizer
    if psi.needs_matrix:
        sizes: np.ndarray = np.linalg.svd(psi.matrix(w), compute_uv=False)
    elif hasattr(psi, "group_norms"):
        sizes = np.ravel(psi.group_norms(w))
    else:
        sizes = np.ravel(np.abs(w))
    return sizes
