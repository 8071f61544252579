"""Small tables brought to the device without waiting, also while a graph is captured."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor

SETS = 16
"""Sets of addresses that are remembered: a caching allocator gives the same few again and again."""


def uploaded(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of ``array`` on a device."""
    there = torch.from_numpy(array.copy())
    return there if device.type == "cpu" else there.pin_memory().to(device, non_blocking=True)


def capturing(device: torch.device) -> bool:
    """Whether launches are recorded in a graph."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


class AddressTables:
    """Where gradients lie: one table on the device per set of addresses, uploaded when the set is first seen.

    Parameters
    ----------
    count : int
        Addresses in a set.
    device : torch.device

    Attributes
    ----------
    there : Tensor
        The table of the set that was chosen last.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self._device = device
        self._known: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()
        self._captured: list[Tensor] = []  # graphs read them
        self._spare: Tensor | None = None
        if device.type == "cuda":
            # Host memory cannot be pinned while a graph is captured.
            self._spare = torch.empty(count, dtype=torch.int64, pin_memory=True)
        self.there = torch.zeros(count, dtype=torch.int64, device=device)

    def choose(self, addresses: list[int]) -> None:
        """Make ``there`` the table of these addresses."""
        key = tuple(addresses)
        if key in self._known:
            self._known.move_to_end(key)
            self.there = self._known[key]
            if capturing(self._device):
                self._captured.append(self.there)
            return
        array = np.array(addresses, dtype=np.int64)
        if self._spare is not None and capturing(self._device):
            # The graph copies from this memory whenever it is replayed: nobody may write there again.
            self._spare.numpy()[:] = array
            self.there = self._spare.to(self._device, non_blocking=True)
            self._captured += [self._spare, self.there]
            self._spare = None
            return
        self.there = self._known[key] = uploaded(array, self._device)
        if len(self._known) > SETS:
            self._known.popitem(last=False)
        if self._spare is None and self._device.type == "cuda":
            self._spare = torch.empty(len(addresses), dtype=torch.int64, pin_memory=True)
