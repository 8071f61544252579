"""CIFAR's python batches, read by an unpickler that can build arrays and containers and run no code."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ramda_theory.workloads.formats.missing import MissingData

ALLOWED = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
}
"""All that the published batches name."""


def latin1(text: str, encoding: str) -> bytes:
    """How old protocols write bytes; no other codec is taken."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")


FILES: dict[str, tuple[str, tuple[str, ...], str, bytes, int]] = {
    "cifar10": ("cifar-10-batches-py", tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch", b"labels", 10),
    "cifar100": ("cifar-100-python", ("train",), "test", b"fine_labels", 100),
}
"""Folder, training files, test file, key of the labels, classes."""


class ArraysOnly(pickle.Unpickler):
    """Refuses every global but NumPy's array, its dtype and what rebuilds them."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return latin1
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of CIFAR needs")
        if module.startswith("numpy.core"):
            module = module.replace("numpy.core", "numpy._core")
        return getattr(importlib.import_module(module), name)


def read_batch(path: Path, data_set: str, key: bytes, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 32, 32) of uint8 and labels (n,) of int64 from one file."""
    if not path.is_file():
        raise MissingData(data_set, path.parents[1], f"there is no {path}")
    try:
        with open(path, "rb") as file:
            content = ArraysOnly(file, encoding="bytes").load()
    except Exception as error:  # what is damaged or hostile fails anywhere, and with anything
        raise MissingData(data_set, path.parents[1], f"{path} is refused or damaged ({error})") from error
    images, labels = (content.get(name) for name in (b"data", key)) if isinstance(content, dict) else (None, None)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != 3072:
        raise MissingData(data_set, path.parents[1], f"{path} holds no images of 3 x 32 x 32 bytes")
    if not isinstance(labels, list) or len(labels) != len(images):
        raise MissingData(data_set, path.parents[1], f"{path} has not one label per image under {key.decode()!r}")
    if not all(type(label) is int and 0 <= label < classes for label in labels):
        raise MissingData(data_set, path.parents[1], f"{path} has a label that is none of 0 to {classes - 1}")
    return images.reshape(-1, 3, 32, 32), np.asarray(labels, dtype=np.int64)


def read_cifar(folder: Path, data_set: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images and labels of "train" and "test" of "cifar10" or "cifar100" below ``folder`` (or in it)."""
    name, training, test, key, classes = FILES[data_set]
    place = folder if (folder / test).is_file() else folder / name
    parts = [read_batch(place / each, data_set, key, classes) for each in training]
    train = tuple(np.concatenate(column) for column in zip(*parts, strict=True))
    return {"train": (train[0], train[1]), "test": read_batch(place / test, data_set, key, classes)}
