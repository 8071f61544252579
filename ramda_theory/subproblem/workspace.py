"""Memory that one solve after another works in: to ask for it anew can take longer than what is done in it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from ramda_theory.arrays import Array, is_host

MOST = 2**26
"""Bytes that are kept from one solve to the next."""
_kept: list[np.ndarray] = []


class Workspace:
    """Room for arrays of one shape, on hosts from what an earlier one has given back.

    Parameters
    ----------
    xp : module
        Namespace of the arrays.
    like : array
        Of the shape, dtype and device of the arrays.
    count : int
        How many.

    Attributes
    ----------
    arrays : array, shape (count, ...)
        Of any values.
    """

    def __init__(self, xp: ModuleType, like: Array, count: int) -> None:
        shape = (count, *like.shape)
        self._memory: np.ndarray | None = None
        if not is_host(like):
            self.arrays: Any = xp.empty(shape, dtype=like.dtype, device=like.device)
            return
        dtype = np.dtype(str(like.dtype).removeprefix("torch."))
        size = int(np.prod(shape)) * dtype.itemsize
        try:
            memory = _kept.pop()  # nobody else has it now
        except IndexError:
            memory = np.empty(0, np.uint8)
        self._memory = memory if memory.size >= size else np.empty(size, np.uint8)
        arrays: np.ndarray = self._memory[:size].view(dtype).reshape(shape)
        self.arrays = arrays
        if xp is not np:
            import torch

            self.arrays = torch.from_numpy(arrays)

    def give_back(self) -> None:
        """The arrays are needed no longer: others may write there."""
        if self._memory is not None and self._memory.size <= MOST and not _kept:
            _kept.append(self._memory)
        self._memory = self.arrays = None
