"""IDX files, the format of MNIST: a magic number, the sizes of the axes, then bytes."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from ramda_theory.workloads.formats.missing import MissingData


def read_idx(path: Path, data_set: str) -> np.ndarray:
    """An array of uint8 from one file, gzipped or not; MissingData if it is cut off, too long or something else."""
    try:
        whole = path.read_bytes()
        if path.suffix == ".gz":
            whole = gzip.decompress(whole)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise MissingData(data_set, path.parent, f"{path} is damaged ({error})") from error
    if len(whole) < 4 or whole[:3] != b"\0\0\x08":
        raise MissingData(data_set, path.parent, f"{path} is no IDX file of bytes")
    axes = whole[3]
    shape = tuple(int.from_bytes(whole[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes))
    wanted, found = math.prod(shape), len(whole) - 4 - 4 * axes
    if wanted != found:
        raise MissingData(data_set, path.parent, f"{path} says {wanted} bytes of data but has {max(found, 0)}")
    return np.frombuffer(whole, np.uint8, offset=4 + 4 * axes).reshape(shape)


def read_pair(folder: Path, kind: str, data_set: str, classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, height, width) and labels (n,) of "train" or "t10k"."""
    found = []
    for name in (f"{kind}-images-idx3-ubyte", f"{kind}-labels-idx1-ubyte"):
        path = next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)
        if path is None:
            raise MissingData(data_set, folder, f"there is no {name}.gz")
        found.append(read_idx(path, data_set))
    images, labels = found
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise MissingData(data_set, folder, f"{kind}: images {images.shape} and labels {labels.shape} do not belong")
    if labels.size and labels.max() >= classes:
        raise MissingData(data_set, folder, f"{kind}: a label is {labels.max()}, there are {classes} classes")
    return images, labels
