"""ResNet-50 on CIFAR-10 and CIFAR-100, group LASSO over input channels (Tables 1, 2, 7)."""

from __future__ import annotations

from functools import partial

from torch import nn

from ramda_theory.workloads.classification import cifar_images, cross_entropy, right_answers
from ramda_theory.workloads.networks.convolutional import resnet_50
from ramda_theory.workloads.vgg_cifar import SCALED
from ramda_theory.workloads.workload import Data, Settings, Workload

SETTINGS = {
    "cifar10": {
        "RAMDA": Settings(1e-2, 1e-2, 1e-6),
        "RMDA": Settings(1e-1, 1e-1, 5e-5),
        "ProxSGD": Settings(1e-1, 0.1, 5e-5),
        "ProxAdamW": Settings(1e-3, weight=5e-7),
    },
    "cifar100": {
        "RAMDA": Settings(1e-2, 1e-2, 5e-7),
        "RMDA": Settings(1e-1, 1e-1, 2e-4),
        "ProxSGD": Settings(1e-1, 0.1, 4e-5),
        "ProxAdamW": Settings(1e-3, weight=1e-6),
    },
}


def network(data: Data, scaled: bool) -> nn.Module:
    """ResNet-50 for small images, or one of 14 layers an eighth as wide."""
    facts = data["train"].facts
    shrunk = {"divide": 8, "depth": 14} if scaled else {}
    return resnet_50(facts["shape"][0], facts["classes"], small_images=True, **shrunk)


def workload(size: str, data_set: str) -> Workload:
    """At the paper's size, or scaled."""
    scaled = size == "scaled"
    return Workload(
        f"resnet50-{data_set}",
        ("ResNet of 14 layers, an eighth as wide" if scaled else "ResNet-50, first layer for 32 x 32")
        + f" on {data_set.upper()[:5]}-{data_set[5:]} (without --data: Fashion-MNIST)",
        model=partial(network, scaled=scaled),
        data=partial(cifar_images, data_set=data_set),
        loss=cross_entropy(),
        score=right_answers,
        why="convolutions by input channel, the linear layer by input; channels on the residual path go together only "
        "where every reader drops them",
        settings=SCALED if scaled else SETTINGS[data_set],
        epochs=5 if scaled else 1000,
        milestones=(2, 3) if scaled else (200, 400, 600, 800),
        cost="130,000 weights" if scaled else "23.5 million weights; 70 to 74 s per epoch on a V100 in its Table 2",
        needs_data=data_set,
    )
