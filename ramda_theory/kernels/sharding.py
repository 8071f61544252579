"""Parameters cut across processes (DTensor): the same algebra on every piece, sums over cut groups together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.nn import Parameter

from ramda_theory.regularizers import Regularizer


def is_sharded(tensor: Tensor) -> TypeGuard[Any]:
    """Whether ``tensor`` is a DTensor."""
    if type(tensor) in (Tensor, Parameter) or not torch.distributed.is_available():
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def local(tensor: Tensor) -> Tensor:
    """This process's piece, sharing its memory; a plain tensor is its own piece."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def local_gradient(gradient: Tensor, parameter: Tensor) -> Tensor:
    """This process's piece of a gradient, cut as its parameter is."""
    if is_sharded(gradient) and is_sharded(parameter) and gradient.placements != parameter.placements:
        gradient = gradient.redistribute(placements=parameter.placements)
    return local(gradient)


def as_sharded_like(piece: Tensor, parameter: Any) -> Any:
    """The DTensor cut as ``parameter`` is whose piece on this process is ``piece``."""
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        piece,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def full_tensor(piece: Tensor, parameter: Tensor) -> Tensor:
    """The whole tensor, gathered from the pieces of all processes."""
    return as_sharded_like(piece, parameter).full_tensor() if is_sharded(parameter) else piece


def local_shard(tensor: Tensor, parameter: Any) -> Tensor:
    """Inverse of `full_tensor`, for a tensor that all processes hold alike."""
    if not is_sharded(parameter):
        return tensor
    from torch.distributed.tensor import DTensor, Replicate

    mesh = parameter.device_mesh
    replicated = DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicated.redistribute(placements=parameter.placements).to_local()


def groups_are_whole(psi: Regularizer, parameter: Any) -> bool:
    """Whether every piece psi separates into lies on one process."""
    axes = psi.piece_axes(tuple(parameter.shape))
    if axes is None:
        return False
    return not any(place.is_shard() and place.dim % parameter.ndim in axes for place in parameter.placements)


def some_piece_is_empty(parameter: Any) -> bool:
    """Whether fewer slices than processes leave one of these without any."""
    lengths = [{length} for length in parameter.shape]
    for place, processes in zip(parameter.placements, parameter.device_mesh.shape, strict=True):
        if place.is_shard():
            longest = [(length, -(-length // processes)) for length in lengths[place.dim]]
            lengths[place.dim] = {max(min(c, n - i * c), 0) for n, c in longest for i in range(processes)}
    return any(0 in each for each in lengths)


def apply(
    function: Callable[..., Tensor], psi: Regularizer, parameter: Tensor, *pieces: Tensor, gather: bool = False
) -> Tensor:
    """This process's piece of ``function(*tensors)``, a minimiser or proximal map of ``psi``.

    Where every group lies on one process the pieces suffice.  Groups that are cut add up their totals over the
    processes (DTensor algebra).  What cannot be written so (the nuclear norm, groups that are no slices, tensors
    too small to give every process a piece, ``gather``) is computed from the whole tensors, on every process alike.
    """
    if not is_sharded(parameter):
        return function(*pieces)
    if not gather and groups_are_whole(psi, parameter):
        return function(*pieces)
    by_axes = psi.piece_axes(tuple(parameter.shape)) is not None
    if by_axes and not gather and not some_piece_is_empty(parameter):
        result: Any = function(*(as_sharded_like(piece, parameter) for piece in pieces))
        return local(result.redistribute(placements=parameter.placements))
    return local_shard(function(*(full_tensor(piece, parameter) for piece in pieces)), parameter)


def meshes(tensors: Sequence[Tensor]) -> list[Any]:
    """The distinct device meshes the tensors lie on, in order of appearance."""
    found: list[Any] = []
    for tensor in tensors:
        if is_sharded(tensor) and tensor.device_mesh not in found:
            found.append(tensor.device_mesh)
    return found


def any_process(flag: Tensor, over: Sequence[Any]) -> Tensor:
    """Whether ``flag`` is true on any process of the meshes ``over``."""
    if not over:
        return flag
    from torch.distributed._functional_collectives import all_reduce

    count = flag.to(torch.float32)
    for mesh in over:
        for dim in range(mesh.ndim):
            count = all_reduce(count, "max", (mesh, dim))
    return count > 0
