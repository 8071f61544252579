"""The figure of ``ramda-theory train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ramda_theory.drawing.style import line_style, new_figure, save_png, style


def plot_training(result: Any, path: str | Path) -> Path:
    """Accuracy, weighted group sparsity of w and w_hat, and structure flips over the epochs.

    Parameters
    ----------
    result : TrainResult
        What `train` returned.
    path : path
        Of the PNG, without its suffix.

    Returns
    -------
    Path
        The file.
    """
    history, settings = result.history, result.settings
    epochs = [row["epoch"] for row in history]
    sparse = history[-1]["sparsity"] is not None
    milestones = settings.milestones or ()
    with style():
        figure = new_figure(4.6, 5.4 if sparse else 2.4)
        axes = np.atleast_1d(figure.subplots(3 if sparse else 1, 1, sharex=True))
        curves = (("", "$w$", line_style(1)), ("_hat", r"$\hat{w}$", line_style(0)))
        for suffix, name, look in curves:
            axes[0].plot(epochs, [row[f"accuracy{suffix}"] for row in history], label=name, **look)
            if sparse:
                axes[1].plot(epochs, [row[f"sparsity{suffix}"] for row in history], label=name, **look)
                axes[2].plot(epochs, [row[f"flips{suffix}"] for row in history], label=name, **look)
        axes[0].set(
            ylabel="validation accuracy", title=f"{settings.optimizer}, {settings.model}, weight {settings.weight:g}"
        )
        axes[0].set_ylim(0.0, 1.02)
        if sparse:
            axes[1].set(ylabel="weighted group sparsity", ylim=(-0.02, 1.02))
            axes[2].set(ylabel="groups that changed")
            axes[2].set_yscale("symlog", linthresh=1)
            axes[2].set_ylim(0, None)
        for axis in axes:
            for milestone in milestones:
                axis.axvline(milestone, color="#777777", linewidth=1.0, linestyle=":", zorder=1)
        axes[-1].set_xlabel(r"epoch (grey lines: a stage begins, at $\hat{w} = w$)" if milestones else "epoch")
        axes[0].legend(loc="lower right")
    return save_png(figure, path)
