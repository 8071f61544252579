"""Figures, drawn from records only."""

from ramda_theory.plots.convergence import draw_error_terms, plot_convergence
from ramda_theory.plots.identification import draw_structures, plot_identification, worst_in_bins
from ramda_theory.plots.provenance import record_figure, typed
from ramda_theory.plots.raster import draw_raster
from ramda_theory.plots.style import COLOURS, DASHES, STYLE, line_style, new_figure, save_both, save_figure, style
from ramda_theory.plots.subproblem import draw_subproblem
from ramda_theory.plots.training import plot_comparison, plot_training
from ramda_theory.plots.validation import plot_validation

__all__ = [
    "COLOURS",
    "DASHES",
    "STYLE",
    "draw_error_terms",
    "draw_raster",
    "draw_structures",
    "draw_subproblem",
    "line_style",
    "new_figure",
    "plot_comparison",
    "plot_convergence",
    "plot_identification",
    "plot_training",
    "plot_validation",
    "record_figure",
    "save_both",
    "save_figure",
    "style",
    "typed",
    "worst_in_bins",
]
