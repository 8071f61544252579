"""Networks and data of ``ramda-theory train``: scikit-learn's handwritten digits, real input of 8 x 8 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ramda_theory.extras import needs

if TYPE_CHECKING:
    from torch import Tensor, nn

MODELS = ("cnn", "mlp")


@dataclass(frozen=True)
class Split:
    """Images in [0, 1] of shape (n, 1, 8, 8), float32, and their digits."""

    images: Tensor
    digits: Tensor


def digit_splits() -> dict[str, Split]:
    """The fixed split of the 1797 digits: "train" 60 %, "validation" 20 %, "test" 20 %, each digit in proportion."""
    import torch

    with needs("experiments"):
        from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    parts: dict[str, list[np.ndarray]] = {"train": [], "validation": [], "test": []}
    for digit in range(10):
        own = order[data.target[order] == digit]
        edges = [round(0.6 * len(own)), round(0.8 * len(own))]
        for name, chosen in zip(parts, np.split(own, edges), strict=True):
            parts[name].append(chosen)
    images = torch.as_tensor(data.images / 16.0, dtype=torch.float32)[:, None]
    digits = torch.as_tensor(data.target, dtype=torch.int64)
    index = {name: torch.as_tensor(np.sort(np.concatenate(chosen))) for name, chosen in parts.items()}
    return {name: Split(images[rows], digits[rows]) for name, rows in index.items()}


def network(model: str, seed: int) -> nn.Module:
    """A freshly initialised network: "cnn" (two convolutions, two linear layers) or "mlp" (64-256-256-10)."""
    import torch
    from torch import nn

    if model not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {model!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if model == "mlp":
            return nn.Sequential(
                nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
            )
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )


def residual_network(seed: int, width: int = 16, blocks: int = 2) -> nn.Module:
    """A freshly initialised residual network: convolution, blocks x + norm(conv(relu(norm(conv(x))))), linear layer.

    All blocks read and write the same ``width`` channels: one of these can leave only if nobody reads it any more.
    """
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
            self.second, self.norm2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x + self.norm2(self.second(torch.relu(self.norm1(self.first(x))))))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            *(Block() for _ in range(blocks)),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * width, 10),
        )
