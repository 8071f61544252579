"""Multinomial logistic regression on MNIST, group LASSO over pixels: the paper's convex problem."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ramda_theory.workloads.augmentation import Normalise
from ramda_theory.workloads.classification import cross_entropy, grey_images, right_answers
from ramda_theory.workloads.digits import digit_splits
from ramda_theory.workloads.examples import Tensors
from ramda_theory.workloads.networks.perceptron import perceptron
from ramda_theory.workloads.workload import Data, Settings, Workload

if TYPE_CHECKING:
    from torch import nn

SETTINGS = {
    "RAMDA": Settings(1e-2, 1e-2, 1e-3),
    "RMDA": Settings(1e-1, 1e-1, 1e-3),
    "ProxSGD": Settings(1e-1, 0.1, 1e-3),
    "ProxAdamW": Settings(1e-3, weight=1e-3),
}


def zero_start(data: Data) -> nn.Module:
    """A linear classifier at zero, where the paper starts."""
    import math

    import torch

    model = perceptron([math.prod(data["train"].facts["shape"]), data["train"].facts["classes"]])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def images(folder: Path | None) -> Data:
    """MNIST from a folder; scikit-learn's digits without one."""
    if folder is not None:
        return grey_images(folder, "mnist")
    facts = {"shape": (1, 8, 8), "classes": 10}
    centre = Normalise((0.3,), (0.37,))
    return {
        name: Tensors((split.images, split.digits), prepare=centre, facts=facts)
        for name, split in digit_splits().items()
    }


def workload(size: str) -> Workload:
    """At the paper's size, or scaled (fewer epochs)."""
    scaled = size == "scaled"
    return Workload(
        "logistic-mnist",
        "multinomial logistic regression on MNIST (without --data: scikit-learn's 8 x 8 digits)",
        model=zero_start,
        data=images,
        loss=cross_entropy(),
        score=right_answers,
        why="the 784 columns of the weight, one per pixel: a pixel whose ten weights are zero is not looked at",
        settings=SETTINGS,
        epochs=50 if scaled else 500,
        milestones=(10, 20, 30, 40) if scaled else (100, 200, 300, 400),
        cost="650 weights" if scaled else "7,850 weights",
        needs_data="mnist",
    )
