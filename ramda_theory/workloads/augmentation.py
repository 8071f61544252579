"""Augmentation of images from given uniform numbers: shifts, crops and flips, on whole batches of tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ShiftAndFlip:
    """A crop of the image padded by ``padding`` zeros on each side, and a mirror image half of the time.

    Parameters
    ----------
    padding : int
    flip : bool
        Digits and letters are not flipped.
    fill : float
        Value of the padding.
    """

    padding: int = 4
    flip: bool = True
    fill: float = 0.0

    draws = 3

    def __call__(self, images: Tensor, draws: np.ndarray) -> Tensor:
        """Images of shape (n, channels, height, width), draws of shape (n, 3): row, column, flip."""
        import torch
        from torch.nn.functional import pad

        height, width = images.shape[2:]
        padded = pad(images, [self.padding] * 4, value=self.fill)
        places = torch.from_numpy(np.floor(draws[:, :2] * (2 * self.padding + 1)).astype(np.int64))
        rows = places[:, 0, None] + torch.arange(height)
        columns = places[:, 1, None] + torch.arange(width)
        if self.flip:
            flipped = torch.from_numpy(draws[:, 2] < 0.5)
            columns = torch.where(flipped[:, None], columns.flip(1), columns)
        sample = torch.arange(len(images))[:, None, None]
        return padded.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@dataclass(frozen=True)
class RandomCrop:
    """The place of a crop of random area and aspect ratio, as in the training of ImageNet.

    Parameters
    ----------
    area : tuple of float
        Least and largest share of the image.
    ratio : tuple of float
        Least and largest width / height.
    """

    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    draws = 5

    def box(self, width: int, height: int, draws: np.ndarray) -> tuple[float, float, float, float, bool]:
        """Left, top, right, bottom, and whether to flip, from five uniform numbers.

        A crop that would leave the image is shrunk until it fits, keeping its aspect ratio.
        """
        share = self.area[0] + draws[0] * (self.area[1] - self.area[0])
        low, high = map(math.log, self.ratio)
        ratio = math.exp(low + draws[1] * (high - low))
        wide, tall = math.sqrt(share * width * height * ratio), math.sqrt(share * width * height / ratio)
        shrink = min(1.0, width / wide, height / tall)
        wide, tall = wide * shrink, tall * shrink
        left, top = draws[2] * (width - wide), draws[3] * (height - tall)
        return left, top, left + wide, top + tall, bool(draws[4] < 0.5)


@dataclass(frozen=True)
class Normalise:
    """(image - mean) / deviation, channel by channel; images of uint8 are divided by 255 first.

    Parameters
    ----------
    mean, deviation : tuple of float
        One per channel.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Images of shape (n, channels, height, width), as float32."""
        import torch

        images = images.float() / 255.0 if images.dtype == torch.uint8 else images
        mean, deviation = (images.new_tensor(each)[:, None, None] for each in (self.mean, self.deviation))
        return (images - mean) / deviation


def central_box(width: int, height: int, share: float) -> tuple[float, float, float, float]:
    """The central square whose side is ``share`` of the shorter side: how ImageNet is tested (224 / 256)."""
    side = share * min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side
