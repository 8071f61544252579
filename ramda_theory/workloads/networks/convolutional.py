"""VGG with batch norm, from its published list of layers, and ResNet-50 from transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ramda_theory.extras import needs

VGG19: tuple[int | str, ...] = (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M")
"""Channels of the convolutions; "M" halves height and width (Simonyan & Zisserman 2015, configuration E)."""
VGG11: tuple[int | str, ...] = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
"""Configuration A."""


def vgg(layers: Sequence[int | str], channels: int, classes: int, divide: int = 1) -> nn.Sequential:
    """VGG for images of 32 x 32, every width divided by ``divide``, with one linear layer at the end.

    Parameters
    ----------
    layers : sequence of int or "M"
        `VGG19` or `VGG11`.
    channels, classes : int
        Of the images.
    divide : int

    Returns
    -------
    torch.nn.Sequential
    """
    modules: list[nn.Module] = []
    width = channels
    for layer in layers:
        if isinstance(layer, str):
            modules.append(nn.MaxPool2d(2))
            continue
        outputs = layer // divide
        modules += [nn.Conv2d(width, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        width = outputs
    return nn.Sequential(*modules, nn.Flatten(), nn.Linear(width, classes))


class Logits(nn.Module):
    """A classifier of transformers as a network that returns its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, classes)."""
        logits: Tensor = self.model(images).logits
        return logits


def resnet_50(channels: int, classes: int, *, small_images: bool, divide: int = 1, depth: int = 50) -> Logits:
    """ResNet-50 (v1.5, the stride in the 3 x 3 convolutions).

    Parameters
    ----------
    channels, classes : int
    small_images : bool
        For 32 x 32: a 3 x 3 convolution without stride or pooling in front, instead of 7 x 7 with both.
    divide : int
        Of every width.
    depth : {50, 14}
        14: one block per stage.

    Returns
    -------
    Logits
    """
    with needs("workloads"):
        from transformers import ResNetConfig, ResNetForImageClassification

    sizes: dict[str, Any] = {"num_labels": classes}
    model = ResNetForImageClassification(
        ResNetConfig(
            num_channels=channels,
            embedding_size=64 // divide,
            hidden_sizes=[width // divide for width in (256, 512, 1024, 2048)],
            depths={50: [3, 4, 6, 3], 14: [1, 1, 1, 1]}[depth],
            **sizes,
        )
    )
    if small_images:
        stem: Any = model.resnet.embedder
        stem.embedder.convolution = nn.Conv2d(channels, 64 // divide, 3, padding=1, bias=False)
        stem.pooler = nn.Identity()
    return Logits(model)
