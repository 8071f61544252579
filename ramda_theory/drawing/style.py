"""The look of all figures: colours that tell apart in grey and for the colour-blind; line styles repeat them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ramda_theory.extras import needs
from ramda_theory.files import write_atomically

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


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure in the house style, drawn without a screen.

    Parameters
    ----------
    width, height : float
        In inches.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    MissingExtra
        If matplotlib is not installed.
    """
    with needs("experiments"):
        import matplotlib
        from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        return Figure(figsize=(width, height), layout="constrained")


def style() -> AbstractContextManager[None]:
    """A context in which axes are made and drawn in the house style.

    Returns
    -------
    context manager

    Raises
    ------
    MissingExtra
        If matplotlib is not installed.
    """
    with needs("experiments"):
        import matplotlib

    return matplotlib.rc_context(STYLE)


def save_figure(figure: Any, path: str | Path) -> Path:
    """Write a figure atomically, in the format of its suffix (PNG, PDF, SVG); the file holds no date.

    Parameters
    ----------
    figure : matplotlib figure
    path : path

    Returns
    -------
    Path
        The file.
    """
    path = Path(path)
    kind = path.suffix.lstrip(".") or "png"
    metadata = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind, {})
    with style():
        return write_atomically(path, lambda file: figure.savefig(file, format=kind, metadata=metadata))


def save_png(figure: Any, path: str | Path) -> Path:
    """Write a figure as ``path`` + ".png", atomically.

    Parameters
    ----------
    figure : matplotlib figure
    path : path
        Without its suffix.

    Returns
    -------
    Path
        The file.
    """
    return save_figure(figure, f"{path}.png")


def line_style(index: int) -> dict[str, Any]:
    """Colour and dashes of the index-th curve.

    Parameters
    ----------
    index : int
        0, 1, ...; the eighth curve looks like the first again.

    Returns
    -------
    dict
        Keywords "color" and "linestyle" of matplotlib's ``plot``.
    """
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}
