"""How figures look and are kept; the figures themselves stand beside what they show, in `ramda_theory.experiments`."""

from ramda_theory.drawing.provenance import command_line, record_figure
from ramda_theory.drawing.raster import draw_raster
from ramda_theory.drawing.style import COLOURS, DASHES, STYLE, line_style, new_figure, save_figure, save_png, style
from ramda_theory.drawing.subproblem import draw_subproblem

__all__ = [
    "COLOURS",
    "DASHES",
    "STYLE",
    "command_line",
    "draw_raster",
    "draw_subproblem",
    "line_style",
    "new_figure",
    "record_figure",
    "save_figure",
    "save_png",
    "style",
]
