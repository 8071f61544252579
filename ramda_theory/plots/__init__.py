"""Figures, drawn from records only."""

from ramda_theory.plots.convergence import plot_convergence
from ramda_theory.plots.identification import plot_identification
from ramda_theory.plots.provenance import record_figure, typed
from ramda_theory.plots.style import COLOURS, DASHES, line_style, new_figure, save_both, save_figure, style
from ramda_theory.plots.training import plot_comparison, plot_training
from ramda_theory.plots.validation import plot_validation

__all__ = [
    "COLOURS",
    "DASHES",
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
]
