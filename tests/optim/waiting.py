"""Who waits for a device: operations whose result the host would have to be told."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NoSynchronisation(TorchDispatchMode):
    """Refuses every operation whose result the host has to wait for, but those on the host's own numbers."""

    WAITING = ("_local_scalar_dense", "nonzero", "item", "equal", "is_nonzero", "masked_select", "_unique2", "allclose")

    def __init__(self, free=()):
        super().__init__()
        self.free, self.operations = {id(tensor) for tensor in free}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operations += 1
        name = function.overloadpacket.__name__
        if name in self.WAITING and id(args[0]) not in self.free:
            raise AssertionError(f"{name} of a tensor of shape {tuple(args[0].shape)}")
        if name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1]):
            raise AssertionError("selection by a mask")
        return function(*args, **(kwargs or {}))
