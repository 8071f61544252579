"""Loss, score and data of the image classifiers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ramda_theory.workloads.augmentation import Normalise, ShiftAndFlip
from ramda_theory.workloads.examples import Batch, Tensors, hold_out
from ramda_theory.workloads.formats.cifar import FILES, read_cifar
from ramda_theory.workloads.formats.idx import read_pair
from ramda_theory.workloads.installed import fashion_mnist
from ramda_theory.workloads.workload import Data

if TYPE_CHECKING:
    from torch import Tensor, nn

HELD_OUT = 0.1
"""Share of the published training images that is kept for validation; the test images are never tuned on."""
GREY = Normalise((0.1307,), (0.3081,))
"""What the authors normalise MNIST and Fashion-MNIST with."""
CIFAR = Normalise((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
"""Mean and deviation of CIFAR-10's channels."""


def cross_entropy(smoothing: float = 0.0) -> Callable[[nn.Module, Batch], Tensor]:
    """The loss of a classifier on (images, labels).

    Parameters
    ----------
    smoothing : float
        Of the labels, in [0, 1).

    Returns
    -------
    callable
        ``loss(model, batch)``.
    """

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        from torch.nn import functional as F

        images, labels = batch
        return F.cross_entropy(model(images).float(), labels, label_smoothing=smoothing)

    return loss


def right_answers(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """Right answers, and samples: accuracy."""
    images, labels = batch
    return (model(images).argmax(dim=1) == labels).sum(), len(labels)


def image_splits(
    published: dict[str, tuple[np.ndarray, np.ndarray]],
    classes: int,
    normalise: Normalise,
    augment: ShiftAndFlip | None = None,
    pad: int = 0,
) -> Data:
    """Training, validation and test images from the published two sets.

    Parameters
    ----------
    published : dict
        "train" and "test": images (n, channels, height, width) or (n, height, width) of uint8, and labels.
    classes : int
    normalise : Normalise
    augment : ShiftAndFlip, optional
        Of training images.
    pad : int
        Zeros added on each side.

    Returns
    -------
    dict of Tensors
    """
    import torch

    def tensors(images: np.ndarray, labels: np.ndarray, augmented: bool) -> Tensors:
        images = images[:, None] if images.ndim == 3 else images
        images = np.pad(images, [(0, 0), (0, 0), (pad, pad), (pad, pad)]) if pad else images
        facts = {"shape": images.shape[1:], "classes": classes}
        pair = torch.from_numpy(np.array(images)), torch.from_numpy(labels.astype(np.int64))
        return Tensors(pair, augment if augmented else None, normalise, facts)

    images, labels = published["train"]
    kept, held = hold_out(len(labels), HELD_OUT, labels)
    return {
        "train": tensors(images[kept], labels[kept], True),
        "validation": tensors(images[held], labels[held], False),
        "test": tensors(*published["test"], False),
    }


def grey_images(folder: Path | None, data_set: str, augment: ShiftAndFlip | None = None, pad: int = 0) -> Data:
    """MNIST or Fashion-MNIST from a folder; without one Debian's Fashion-MNIST."""
    if folder is None:
        folder, data_set = fashion_mnist(), "fashion-mnist"
    published = {name: read_pair(folder, kind, data_set) for name, kind in (("train", "train"), ("test", "t10k"))}
    return image_splits(published, 10, GREY, augment, pad)


def cifar_images(folder: Path | None, data_set: str) -> Data:
    """CIFAR from a folder, shifted and flipped; without one Fashion-MNIST, padded to 32 x 32."""
    if folder is None:
        return grey_images(None, "fashion-mnist", ShiftAndFlip(2), pad=2)
    return image_splits(read_cifar(folder, data_set), FILES[data_set][-1], CIFAR, ShiftAndFlip(4))
