"""ResNet-50 on ImageNet, group LASSO over input channels (Table 3)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from ramda_theory.workloads.augmentation import Normalise, RandomCrop
from ramda_theory.workloads.classification import cifar_images, cross_entropy, right_answers
from ramda_theory.workloads.examples import hold_out
from ramda_theory.workloads.formats.image_folder import ImageFiles, list_images
from ramda_theory.workloads.formats.missing import MissingData
from ramda_theory.workloads.networks.convolutional import resnet_50
from ramda_theory.workloads.vgg_cifar import SCALED
from ramda_theory.workloads.workload import Data, Settings, Workload

SETTINGS = {
    "RAMDA": Settings(1e-2, 1e-2, 4e-7),
    "RMDA": Settings(1.0, 1e-1, 1.35e-5),
    "ProxSGD": Settings(1e-1, 0.1, 1.25e-5),
    "ProxAdamW": Settings(1e-3, weight=1.3e-7),
    "MSGD": Settings(1e-1, 0.1),
}
CHANNELS = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of ImageNet's channels."""


def folders(folder: Path | None, size: int = 224) -> Data:
    """``train`` and ``val`` below a folder; 2 % of the training images are held out, ``val`` is the test."""
    if folder is None:
        return cifar_images(None, "cifar10")
    paths, labels, classes = list_images(folder / "train", "imagenet")
    test_paths, test_labels, test_classes = list_images(folder / "val", "imagenet")
    if classes != test_classes:
        raise MissingData("imagenet", folder, f"train has {len(classes)} classes, val {len(test_classes)} or others")
    kept, held = hold_out(len(labels), 0.02, labels)
    facts = {"shape": (3, size, size), "classes": len(classes)}

    def files(rows: np.ndarray, crop: RandomCrop | None) -> ImageFiles:
        return ImageFiles([paths[row] for row in rows], labels[rows], size, crop, CHANNELS, "imagenet", facts)

    return {
        "train": files(kept, RandomCrop()),
        "validation": files(held if len(held) else kept, None),
        "test": ImageFiles(test_paths, test_labels, size, None, CHANNELS, "imagenet", facts),
    }


def network(data: Data, scaled: bool) -> nn.Module:
    """ResNet-50, or one of 14 layers an eighth as wide."""
    facts = data["train"].facts
    shrunk = {"divide": 8, "depth": 14} if scaled else {}
    return resnet_50(facts["shape"][0], facts["classes"], small_images=facts["shape"][1] <= 64, **shrunk)


def workload(size: str) -> Workload:
    """At the paper's size, or scaled."""
    scaled = size == "scaled"
    return Workload(
        "resnet50-imagenet",
        ("ResNet of 14 layers, an eighth as wide" if scaled else "ResNet-50")
        + " on ImageNet (without --data: Fashion-MNIST)",
        model=partial(network, scaled=scaled),
        data=folders,
        loss=cross_entropy(0.1),
        score=right_answers,
        why="convolutions by input channel, the linear layer by input",
        settings=SCALED if scaled else SETTINGS,
        batch=128 if scaled else 256,
        epochs=5 if scaled else 160,
        milestones=(2, 3) if scaled else (40, 80, 120),
        cost="130,000 weights" if scaled else "25.6 million weights; 8 GPUs in the paper",
        needs_data="imagenet",
    )
