"""A folder into which every process writes its pieces of sharded arrays, and from which any number of them read.

The format is that of ``torch.distributed.checkpoint``.  Its own reader lets ``.metadata`` run code, and so do objects
in it; the one here takes tensors only, and no global but those that describe them.
"""

from __future__ import annotations

import errno
import importlib
import pickle
import shutil
import warnings
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import Tensor
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from ramda_theory.files import sync_folder

ALLOWED = {
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    *(
        ("torch.distributed.checkpoint.metadata", name)
        for name in (
            "_MEM_FORMAT_ENCODING",
            "ChunkStorageMetadata",
            "Metadata",
            "MetadataIndex",
            "StorageMeta",
            "TensorProperties",
            "TensorStorageMetadata",
        )
    ),
}
"""All that the description of tensors names, but for their dtypes and the path at which they were written."""


class DescriptionsOnly(pickle.Unpickler):
    """Refuses every global but those that describe tensors."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ALLOWED:
            return getattr(importlib.import_module(module), name)
        if module == "torch" and isinstance(dtype := getattr(torch, name, None), torch.dtype):
            return dtype
        if module.partition(".")[0] == "pathlib" and name in ("PosixPath", "WindowsPath"):
            return PurePath  # of whatever system; nothing is opened there
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no description of tensors needs")


class Reader(dcp.FileSystemReader):
    """Reads pieces after their description was checked.

    Parameters
    ----------
    folder : path
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.metadata = read_metadata(folder)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The description that was checked."""
        return self.metadata


def read_metadata(folder: Path) -> Metadata:
    """The description of a folder, after checking that it is one and that the files it names are there, and whole."""
    path = folder / ".metadata"
    if not path.is_file():
        raise ValueError(f"{folder} is damaged: there is no .metadata in it" if folder.is_dir() else f"no {folder}")
    try:
        with open(path, "rb") as file:
            found = DescriptionsOnly(file).load()
        arrays = all(is_whole(each) for each in found.state_dict_metadata.values())
        ends: dict[str, int] = {}
        for part in found.storage_data.values():
            name = part.relative_path
            ends[name] = max(ends.get(name, 0), part.offset + part.length)
        inside = all(PurePath(name).name == name for name in ends)
    except Exception as error:  # what is damaged or hostile fails anywhere, and with anything
        raise ValueError(f"{folder} is refused or damaged: its .metadata cannot be read ({error})") from error
    if not (isinstance(found, Metadata) and arrays and inside):
        raise ValueError(f"{folder} is refused or damaged: its .metadata describes other things than whole tensors")
    for name, end in ends.items():
        if not (folder / name).is_file():
            raise ValueError(f"{folder} is damaged: there is no {name} in it")
        if (folder / name).stat().st_size < end:
            raise ValueError(f"{folder} is damaged: {name} is cut short")
    return found


def is_whole(described: Any) -> bool:
    """Whether this is a tensor whose pieces, cut along the first axis, follow one another from its begin to its end."""
    if not (isinstance(described, TensorStorageMetadata) and isinstance(described.properties.dtype, torch.dtype)):
        return False
    end, (rows, *others) = 0, described.size
    for chunk in sorted(described.chunks, key=lambda chunk: (*chunk.offsets, *chunk.sizes)):
        if [*chunk.offsets, *chunk.sizes[1:]] != [end, *[0] * len(others), *others]:
            return False
        end += chunk.sizes[0]
    return end == rows


def write_pieces(folder: Path, pieces: dict[str, Tensor]) -> None:
    """Write the pieces that this process has to a folder, lasting; every process must call.

    Parameters
    ----------
    folder : path
        New.
    pieces : dict
        DTensors by name.

    Raises
    ------
    OSError
        In every process, if one cannot write; the folder is gone then.
    """
    try:
        dcp.save(dict(pieces), storage_writer=dcp.FileSystemWriter(folder))
        sync_folder(folder)
    except dcp.CheckpointException as error:
        shutil.rmtree(folder, ignore_errors=True)
        _, (cause, _) = min(error.failures.items())
        number, words = getattr(cause, "errno", None), getattr(cause, "strerror", None)
        raise OSError(number or errno.EIO, words or f"{type(cause).__name__}: {cause}", str(folder)) from error
    sync_folder(folder.parent)


def read_pieces(folder: Path, like: dict[str, Tensor], alone: bool) -> dict[str, Tensor]:
    """The arrays in a folder, cut as others are.

    Parameters
    ----------
    folder : path
    like : dict
        Tensors by name, cut or whole.
    alone : bool
        Whether to read without the other processes; else every process must call.

    Returns
    -------
    dict
        Arrays of the same names and shapes, in the dtypes with which they were written.

    Raises
    ------
    ValueError
        Naming the folder, if it is damaged, asks for more than tensors, or holds others.
    """
    reader = Reader(folder)
    found = reader.metadata.state_dict_metadata
    if different := sorted(found.keys() ^ like.keys()):
        raise ValueError(f"{folder} {'holds' if different[0] in found else 'lacks'} {different[0]}")
    arrays: dict[str, Tensor] = {}
    for name, model in like.items():
        described: Any = found[name]
        if described.size != model.shape:
            raise ValueError(f"{folder} has {name} of shape {tuple(described.size)}, not {tuple(model.shape)}")
        arrays[name] = torch.empty_like(model, dtype=described.properties.dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        try:
            dcp.load(arrays, storage_reader=reader, no_dist=alone)
        except dcp.CheckpointException as error:
            rank, (cause, _) = min(error.failures.items())
            failure = f"{type(cause).__name__} in process {rank}"
            raise ValueError(f"{folder} is damaged: its arrays cannot be read ({failure})") from error
    return arrays
