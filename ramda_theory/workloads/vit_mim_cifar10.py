"""A vision transformer that fills in masked patches of CIFAR-10, nuclear norm per weight (Table 9)."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ramda_theory.regularizers import NuclearNorm
from ramda_theory.workloads.classification import cifar_images
from ramda_theory.workloads.examples import Batch, Examples
from ramda_theory.workloads.workload import Data, Settings, Workload

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ramda_theory.workloads.networks.masked_images import MaskedImages

MASKED = 0.6
"""Share of the patches that are masked."""

SETTINGS = {
    "RAMDA": Settings(1e-2, 1e-1, 1e-5),
    "RMDA": Settings(10.0, 1e-1, 1e-5),
    "ProxSGD": Settings(10.0, 0.1, 2.5e-5),
    "ProxAdamW": Settings(1e-3, weight=1e-4),
    "AdamW": Settings(1e-3),
}
SCALED = SETTINGS | {"RMDA": Settings(1.0, 1e-1, 1e-3), "ProxSGD": Settings(1.0, 0.1, 1e-3)}


class Masked(Examples):
    """(images, masked patches); without draws the masks follow from the rows, so that every evaluation has the same.

    Parameters
    ----------
    images : Examples
        Of which the first tensor is taken.
    size : int
        Images are enlarged to this many pixels.
    patches, coarse : int
        Patches along a side of the network, and of the mask (whose patches are larger).
    """

    def __init__(self, images: Examples, size: int, patches: int, coarse: int) -> None:
        self.images, self.size, self.patches, self.coarse = images, size, patches, coarse
        self.draws = images.draws + coarse**2
        self.facts = images.facts | {"size": size}

    def __len__(self) -> int:
        return len(self.images)

    def fetch(self, rows: np.ndarray, draws: np.ndarray | None) -> Batch:
        import torch
        from torch.nn import functional as F

        count, own = self.coarse**2, self.images.draws
        images = self.images.fetch(rows, None if draws is None else draws[:, :own])[0]
        if self.size != images.shape[-1]:
            images = F.interpolate(images, size=(self.size, self.size), mode="bilinear", align_corners=False)
        places = (
            np.stack([np.random.default_rng(row).random(count) for row in rows]) if draws is None else draws[:, own:]
        )
        order = places.argsort(axis=1).argsort(axis=1)
        mask = (order < math.ceil(MASKED * count)).reshape(-1, self.coarse, self.coarse)
        times = self.patches // self.coarse
        return images, torch.from_numpy(mask.repeat(times, 1).repeat(times, 2).reshape(len(rows), -1))


def masked_images(folder: Path | None, size: int, patch: int, mask_patch: int) -> Data:
    """The images of `cifar_images` without their labels."""
    parts = cifar_images(folder, "cifar10")
    return {name: Masked(part, size, size // patch, size // mask_patch) for name, part in parts.items()}


def network(data: Data, patch: int, **sizes: Any) -> MaskedImages:
    """ViT-Base, or a small one."""
    from ramda_theory.workloads.networks.masked_images import MaskedImages

    facts = data["train"].facts
    return MaskedImages(facts["size"], patch, facts["shape"][0], **sizes)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean error over the images."""
    error: Tensor = model(*batch).mean()
    return error


def score(model: nn.Module, batch: Batch) -> tuple[Tensor, int]:
    """Sum of the errors, and images."""
    return model(*batch).sum(), len(batch[0])


def workload(size: str) -> Workload:
    """At the size that is usual for masked images, or scaled."""
    scaled = size == "scaled"
    pixels, patch, mask_patch = (32, 4, 8) if scaled else (224, 16, 32)
    sizes: dict[str, Any] = (
        {"width": 64, "layers": 4, "heads": 4} if scaled else {"width": 768, "layers": 12, "heads": 12}
    )
    return Workload(
        "vit-mim-cifar10",
        ("ViT of 4 layers, width 64, patches of 4" if scaled else "ViT-Base/16 at 224 pixels")
        + ", masked images of CIFAR-10 (without --data: Fashion-MNIST), nuclear norm",
        model=partial(network, patch=patch, **sizes),
        data=partial(masked_images, size=pixels, patch=patch, mask_patch=mask_patch),
        loss=loss,
        score=score,
        metric="validation loss",
        higher_is_better=False,
        regularizer=NuclearNorm,
        why="every weight matrix as a whole, the patch projection and the decoder as matrices too",
        settings=SCALED if scaled else SETTINGS,
        epochs=3 if scaled else 300,
        milestones=(1, 2) if scaled else (100, 200),
        cost="206,000 weights"
        if scaled
        else "86 million weights; the paper names neither the network's size nor the number of epochs: ViT-Base and "
        "300 are ours",
        needs_data="cifar10",
    )
