"""The paper's perceptron on Fashion-MNIST with a nuclear norm per weight matrix (Table 8)."""

from __future__ import annotations

import math
from functools import partial

from ramda_theory.regularizers import NuclearNorm
from ramda_theory.workloads.classification import cross_entropy, grey_images, right_answers
from ramda_theory.workloads.networks.perceptron import perceptron
from ramda_theory.workloads.workload import Settings, Workload

HIDDEN = (512, 256, 128, 64, 32, 16)

SETTINGS = {
    "RAMDA": Settings(1e-2, 1e-1, 1e-3),
    "RMDA": Settings(1e-1, 1e-1, 5e-3),
    "ProxSGD": Settings(1e-1, 0.1, 5e-3),
    "ProxAdamW": Settings(1e-3, weight=3.5e-3),
    "MSGD": Settings(1e-1, 0.1),
}


def workload(size: str) -> Workload:
    """At the paper's size, or scaled: the same network for 30 epochs."""
    scaled = size == "scaled"
    return Workload(
        "mlp-fashion-mnist",
        "perceptron 784-512-256-128-64-32-16-10 on Fashion-MNIST, nuclear norm",
        model=lambda data: perceptron(
            [math.prod(data["train"].facts["shape"]), *HIDDEN, data["train"].facts["classes"]]
        ),
        data=partial(grey_images, data_set="fashion-mnist"),
        loss=cross_entropy(),
        score=right_answers,
        regularizer=NuclearNorm,
        why="every weight matrix as a whole: of low rank r it can be kept as two factors, r (rows + columns) numbers",
        settings=SETTINGS,
        epochs=30 if scaled else 300,
        milestones=(10, 20) if scaled else (100, 200),
        cost="577,178 weights; 300 epochs of 422 steps",
        needs_data="fashion-mnist",
    )
