"""The published Tables 7 and 8 beside ours: their figures, what they claim, and how both are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ramda_theory.drawing import COLOURS

Published = Mapping[str, Mapping[str, float]]

LOGISTIC_REGRESSION: Published = {
    "ProxSGD": {"accuracy": 91.31, "sparsity": 39.29},
    "ProxSSI": {"accuracy": 91.31, "sparsity": 39.92},
    "ProxGen": {"accuracy": 91.31, "sparsity": 39.92},
    "RMDA": {"accuracy": 91.34, "sparsity": 57.02},
    "RAMDA": {"accuracy": 91.35, "sparsity": 57.40},
}
"""Test accuracy and group sparsity in %, MNIST, group LASSO: arXiv:2403.14398, Table 7."""

NUCLEAR_NORM: Published = {
    "MSGD": {"accuracy": 89.95},
    "ProxSGD": {"accuracy": 87.54, "low-rank level": 78.00},
    "ProxGen": {"accuracy": 86.66, "low-rank level": 87.46},
    "RMDA": {"accuracy": 88.19, "low-rank level": 91.88},
    "RAMDA": {"accuracy": 87.99, "low-rank level": 89.59},
}
"""Test accuracy and low-rank level in %, MLP on FashionMNIST, nuclear norm: arXiv:2403.14398, Table 8."""

OURS = ("RMDA", "RAMDA")
"""The dual averaging methods: the paper's own and its predecessor by the same authors."""

Rows = Mapping[str, Mapping[str, Any]]
"""Per method "mean", "std" and "runs" of its quantities, see `summary`."""


def summary(runs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Mean and standard deviation of every quantity over the runs of a method, beside the runs."""
    values = {key: [run[key] for run in runs] for key in runs[0]}
    return {
        "mean": {key: float(np.mean(numbers)) for key, numbers in values.items()},
        "std": {key: float(np.std(numbers)) for key, numbers in values.items()},
        "runs": list(runs),
    }


def means(rows: Rows, quantity: str) -> dict[str, float]:
    """The mean of every method that has the quantity."""
    return {name: entry["mean"][quantity] for name, entry in rows.items() if quantity in entry["mean"]}


def leads(rows: Rows, level: str, points: float) -> bool:
    """Whether RMDA and RAMDA each reach every rival's level, at most some points below the best accuracy.

    Methods without the level are no rivals.
    """
    levels = means(rows, level)
    accuracy = {name: rows[name]["mean"]["accuracy"] for name in levels}
    best = max(accuracy.values())
    rivals = max(value for name, value in levels.items() if name not in OURS)
    return all(levels[name] >= rivals and accuracy[name] >= best - points for name in OURS)


def beside(rows: Rows, paper: Published, level: str) -> str:
    """Accuracy and level of every method, the paper's in brackets."""
    words = []
    for name, entry in rows.items():
        keys = [key for key in ("accuracy", level) if key in entry["mean"]]
        own = ", ".join(f"{entry['mean'][key]:.1f} %" for key in keys)
        words.append(f"{name} {own} (paper {', '.join(f'{paper[name][key]:.1f}' for key in keys)})")
    return "; ".join(words)


def dots(axes: Any, rows: Rows, paper: Published, level: str) -> None:
    """A line per method: the levels of its seeds and of the paper, and the accuracy that each of them has."""
    shown = means(rows, level)
    for place, name in enumerate(reversed(shown)):
        runs = rows[name]["runs"]
        seeds = {"color": COLOURS[0], "markersize": 6, "alpha": 0.6, "markeredgewidth": 0}
        heights = [place + 0.12 * (index - (len(runs) - 1) / 2) for index in range(len(runs))]
        axes.plot([run[level] for run in runs], heights, "o", label="ours, every seed", **seeds)
        look = {"color": COLOURS[4], "markersize": 7, "markerfacecolor": "none"}
        axes.plot(paper[name][level], place, "D", label="paper", **look)
        accuracies = ", ".join(f"{run['accuracy']:.1f}" for run in reversed(runs))  # from the top down, as the dots
        text = f"accuracy\n{accuracies} %\n(paper {paper[name]['accuracy']:.1f} %)"
        axes.annotate(text, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=6.5)
    axes.set_yticks(range(len(shown)), list(reversed(shown)))
    axes.set_ylim(-0.5, len(shown) - 0.5)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[:2], labels[:2], loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)
