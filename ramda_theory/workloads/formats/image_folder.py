"""A folder per class with image files inside, read with Pillow when a batch asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ramda_theory.extras import needs
from ramda_theory.workloads.augmentation import Normalise, RandomCrop, central_box
from ramda_theory.workloads.examples import Batch, Examples
from ramda_theory.workloads.formats.missing import MissingData

if TYPE_CHECKING:
    from collections.abc import Sequence

SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".webp")


def list_images(folder: Path, data_set: str) -> tuple[list[Path], np.ndarray, list[str]]:
    """Files, their class numbers and the names of the classes, sorted."""
    if not folder.is_dir():
        raise MissingData(data_set, folder.parent, f"there is no folder {folder}")
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    paths: list[Path] = []
    labels: list[int] = []
    for number, name in enumerate(classes):
        own = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in SUFFIXES)
        if not own:
            raise MissingData(data_set, folder.parent, f"the class folder {folder / name} holds no image")
        paths += own
        labels += [number] * len(own)
    if not paths:
        raise MissingData(data_set, folder.parent, f"{folder} holds no folder of images")
    return paths, np.asarray(labels, dtype=np.int64), classes


class ImageFiles(Examples):
    """Images decoded when they are asked for, cropped to a square of ``size`` pixels.

    Parameters
    ----------
    paths : sequence of Path
    labels : array of int64
    size : int
    crop : RandomCrop or None
        None: the central crop of 224 / 256.
    normalise : Normalise
    data_set : str
        A key of the catalogue, for messages.
    facts : dict
    """

    slow = True

    def __init__(
        self,
        paths: Sequence[Path],
        labels: np.ndarray,
        size: int,
        crop: RandomCrop | None,
        normalise: Normalise,
        data_set: str,
        facts: dict[str, Any],
    ) -> None:
        self.paths, self.labels, self.size, self.crop = list(paths), labels, size, crop
        self.normalise, self.data_set, self.facts = normalise, data_set, facts
        self.draws = 0 if crop is None else crop.draws

    def __len__(self) -> int:
        return len(self.paths)

    def fetch(self, rows: np.ndarray, draws: np.ndarray | None) -> Batch:
        import torch

        images = np.stack(
            [self.image(self.paths[row], None if draws is None else draws[i]) for i, row in enumerate(rows)]
        )
        return self.normalise(torch.from_numpy(images).permute(0, 3, 1, 2)), torch.from_numpy(self.labels[rows])

    def image(self, path: Path, draws: np.ndarray | None) -> np.ndarray:
        """One image, (size, size, 3) of uint8."""
        with needs("workloads"):
            from PIL import Image

        try:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
        except OSError as error:
            raise MissingData(self.data_set, path.parents[2], f"{path} cannot be read ({error})") from error
        flip = False
        if self.crop is not None and draws is not None:
            *box, flip = self.crop.box(*image.size, draws)
        else:
            box = list(central_box(*image.size, 224 / 256))
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=(box[0], box[1], box[2], box[3]))
        pixels: np.ndarray = np.asarray(image)
        return pixels[:, ::-1] if flip else pixels
