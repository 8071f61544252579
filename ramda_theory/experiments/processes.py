"""One process or many: who this one is, and how a model is shared among them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Processes:
    """This process among those that ``torchrun`` started.

    Parameters
    ----------
    rank, world : int
    device : torch.device
    shard : bool
        Parameters and state are cut into pieces (FSDP2) instead of copied (DDP).
    """

    rank: int
    world: int
    device: torch.device
    shard: bool = False

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def shared(self, model: nn.Module) -> nn.Module:
        """The model as it is called in training; a sharded one is changed in place."""
        import torch
        from torch import nn

        if self.world == 1 and not self.shard:
            return model
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        if not self.shard:
            ids = [self.device.index] if self.device.type == "cuda" else None
            return torch.nn.parallel.DistributedDataParallel(model, device_ids=ids)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.world,))
        for module in list(model.modules()):
            if isinstance(module, nn.ModuleList):
                for layer in module:
                    fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model

    def total(self, *values: float) -> list[float]:
        """The sums over all processes."""
        import torch

        if self.world == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(sums)
        found: list[float] = sums.tolist()
        return found

    def align_buffers(self, model: nn.Module) -> None:
        """Buffers, such as running means, as the first process has them."""
        import torch

        if self.world > 1:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def agreed(self, text: str) -> str:
        """What the first process says."""
        import torch

        if self.world == 1:
            return text
        texts = [text]
        torch.distributed.broadcast_object_list(texts, 0)
        return texts[0]

    def close(self) -> None:
        """Leave the group, if there is one."""
        import torch

        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def find_device(name: str) -> torch.device:
    """The device of a name: "auto" is an NVIDIA GPU where there is one.

    Parameters
    ----------
    name : {"auto", "cpu", "cuda"}

    Returns
    -------
    torch.device

    Raises
    ------
    ValueError
        If there is no such device.
    """
    import torch

    if name not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch finds no NVIDIA GPU")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", 0))
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def join(device: str = "auto", shard: bool = False) -> Processes:
    """Join the processes that ``torchrun`` started; alone without it.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
    shard : bool

    Returns
    -------
    Processes
    """
    import torch

    place = find_device(device)
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world == 1 and not shard:
        return Processes(0, 1, place)
    if not torch.distributed.is_initialized():
        backend = "nccl" if place.type == "cuda" else "gloo"
        if "WORLD_SIZE" in os.environ:
            torch.distributed.init_process_group(backend)
        else:
            torch.distributed.init_process_group(backend, store=torch.distributed.HashStore(), rank=0, world_size=1)
    return Processes(torch.distributed.get_rank(), torch.distributed.get_world_size(), place, shard)
