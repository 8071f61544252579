"""VGG19 with batch norm on CIFAR-10 and CIFAR-100, group LASSO over input channels (Tables 1, 2, 7)."""

from __future__ import annotations

from functools import partial

from torch import nn

from ramda_theory.workloads.classification import cifar_images, cross_entropy, right_answers
from ramda_theory.workloads.networks.convolutional import VGG11, VGG19, vgg
from ramda_theory.workloads.workload import Data, Settings, Workload

SETTINGS = {
    "cifar10": {
        "RAMDA": Settings(1e-2, 1e-2, 8e-7),
        "RMDA": Settings(1e-1, 1e-1, 1.5e-4),
        "ProxSGD": Settings(1e-1, 0.1, 3e-5),
        "ProxAdamW": Settings(1e-3, weight=1e-6),
    },
    "cifar100": {
        "RAMDA": Settings(1e-2, 1e-2, 2e-7),
        "RMDA": Settings(1e-1, 1e-1, 1e-4),
        "ProxSGD": Settings(1e-1, 0.1, 4e-5),
        "ProxAdamW": Settings(1e-3, weight=1e-6),
    },
}
SCALED = {
    "RAMDA": Settings(1e-2, 1e-1, 4.5e-4),
    "RMDA": Settings(1e-1, 1e-1, 3e-3),
    "ProxSGD": Settings(1e-1, 0.1, 3e-3),
    "ProxAdamW": Settings(1e-3, weight=3e-4),
    "NormalMapSGD": Settings(1e-1, weight=3e-3),
    "DGating": Settings(5e-2, weight=3e-3),
    "PAT": Settings(1e-3, weight=1e-1),
    "MSGD": Settings(1e-1, 0.1),
}
"""For a few epochs, where the paper's small weights have no time to act.  RAMDA's weight and the milestones are the
best of five settings on the validation images of one seed; the other weights are where structure begins to appear."""


def network(data: Data, scaled: bool) -> nn.Module:
    """VGG19, or VGG11 an eighth as wide."""
    facts = data["train"].facts
    layers, divide = (VGG11, 8) if scaled else (VGG19, 1)
    return vgg(layers, facts["shape"][0], facts["classes"], divide)


def workload(size: str, data_set: str) -> Workload:
    """At the paper's size, or scaled."""
    scaled = size == "scaled"
    return Workload(
        f"vgg19-{data_set}",
        ("VGG11 an eighth as wide" if scaled else "VGG19 with batch norm")
        + f" on {data_set.upper()[:5]}-{data_set[5:]} (without --data: Fashion-MNIST)",
        model=partial(network, scaled=scaled),
        data=partial(cifar_images, data_set=data_set),
        loss=cross_entropy(),
        score=right_answers,
        why="convolutions by input channel, the linear layer by input: a channel that no filter reads need not be made",
        settings=SCALED if scaled else SETTINGS[data_set],
        epochs=12 if scaled else 1000,
        milestones=(2, 5, 9) if scaled else (200, 400, 600, 800),
        cost="146,000 weights" if scaled else "20.0 million weights; 24 to 26 s per epoch on a V100 in its Table 2",
        needs_data=data_set,
    )
