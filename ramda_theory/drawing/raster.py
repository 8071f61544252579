"""When which piece of a structure was wrong: a raster of pieces over the steps of a run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ramda_theory.diagnostics import StructureTrace
from ramda_theory.structure import Pattern


def wrong_shares(trace: StructureTrace, reference: Pattern, windows: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of the steps of each window at which each piece differs from ``reference``.

    Returns
    -------
    edges : array of int, shape (windows + 1,)
        Window k holds the steps edges[k] + 1 .. edges[k + 1]; all are equally long but the last.
    shares : array, shape (pieces, windows)
    """
    if not len(trace):
        raise ValueError("trace must hold at least one step, got none")
    trace.distances(reference)  # refuses another kind or shape
    wrong = np.concatenate(list(trace.blocks())) != reference.pattern.ravel()
    width = math.ceil(len(wrong) / windows)
    starts = np.arange(0, len(wrong), width)
    edges = np.append(starts, len(wrong))
    return edges, (np.add.reduceat(wrong, starts, axis=0, dtype=float) / np.diff(edges)[:, None]).T


def draw_raster(axes: Any, trace: StructureTrace, reference: Pattern, order: np.ndarray, windows: int = 140) -> Any:
    """Draw how often each piece was wrong, one row a piece, one column a window of steps.

    Parameters
    ----------
    axes : matplotlib axes
    trace : StructureTrace
        Of a pattern, not of a rank.
    reference : Pattern
        What is right.
    order : array of int
        The pieces to draw, by their index in the flattened pattern, from the bottom up.
    windows : int
        Columns, at most.

    Returns
    -------
    matplotlib image
        Its values lie in [0, 1]; white is never wrong, black always.
    """
    edges, shares = wrong_shares(trace, reference, windows)
    rows = np.arange(len(order) + 1) - 0.5
    # The smallest nonzero share must be seen: a piece that was wrong at one step of a window is not white.
    visible = np.where(shares > 0, 0.25 + 0.75 * shares, 0.0)[order]
    image = axes.pcolormesh(edges, rows, visible, cmap="Greys", vmin=0.0, vmax=1.0, rasterized=True)
    axes.grid(False)
    axes.set(xlabel="iteration", ylabel="pieces")
    return image
