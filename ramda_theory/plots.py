"""Figures under the names of earlier versions: `ramda_theory.drawing` and the figures of `ramda_theory.experiments`."""

from ramda_theory.drawing import *  # noqa: F403
from ramda_theory.drawing import __all__ as _drawing
from ramda_theory.experiments.compare_figure import plot_comparison
from ramda_theory.experiments.converge_figure import draw_error_terms, plot_convergence
from ramda_theory.experiments.identify_figure import draw_structures, plot_identification, worst_in_bins
from ramda_theory.experiments.train_figure import plot_training
from ramda_theory.experiments.validate_figure import plot_validation

save_both = save_png  # noqa: F405
typed = command_line  # noqa: F405

__all__ = [
    *_drawing,
    "draw_error_terms",
    "draw_structures",
    "plot_comparison",
    "plot_convergence",
    "plot_identification",
    "plot_training",
    "plot_validation",
    "save_both",
    "typed",
    "worst_in_bins",
]
