"""Parameters cut across processes (DTensor): the same algebra on every piece, sums over cut groups together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    piece: Tensor = local(cut_alike(gradient, parameter))
    return piece


def cut_alike(gradient: Tensor, parameter: Tensor) -> Any:
    """A gradient cut as its parameter is."""
    if is_sharded(gradient) and is_sharded(parameter) and gradient.placements != parameter.placements:
        gradient = gradient.redistribute(placements=parameter.placements)
    return gradient


def laid_alike(gradient: Tensor, parameter: Tensor) -> Any:
    """A gradient cut as its parameter is, whose piece lies in memory as that of the parameter does.

    How a piece lies may differ from process to process; with this, what can be done with it does not.
    """
    if not (is_sharded(gradient) and is_sharded(parameter)):
        return gradient
    gradient = cut_alike(gradient, parameter)
    piece, own = local(gradient), local(parameter)
    same = piece.stride() == own.stride() or (piece.is_contiguous() and own.is_contiguous())
    if piece.shape != own.shape or (same and type(piece) is Tensor):
        return gradient
    return as_sharded_like(torch.empty_like(own, dtype=piece.dtype).copy_(piece), parameter)


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


def cutting_dims(psi: Regularizer, parameter: Any) -> tuple[int, ...] | None:
    """Dimensions of the mesh along which pieces that psi separates into are cut; None where these are no slices."""
    axes = psi.piece_axes(tuple(parameter.shape))
    if axes is None:
        return None
    places = zip(parameter.placements, parameter.device_mesh.shape, strict=True)
    return tuple(
        dim
        for dim, (place, processes) in enumerate(places)
        if processes > 1 and place.is_shard() and place.dim % parameter.ndim in axes
    )


def groups_are_whole(psi: Regularizer, parameter: Any) -> bool:
    """Whether every piece psi separates into lies on one process."""
    return cutting_dims(psi, parameter) == ()


@dataclass(frozen=True)
class MeshSum:
    """The sum over the processes along some dimensions of a mesh, which complete what each has of a group.

    Parameters
    ----------
    mesh : DeviceMesh
    dims : tuple of int
    """

    mesh: Any
    dims: tuple[int, ...]

    def add_up(self, totals: Tensor) -> None:
        """Replace numbers by their sums over the processes, the same bits on all of them."""
        for dim in self.dims:
            torch.distributed.all_reduce(totals, group=self.mesh.get_group(dim))


def mesh_sum_of_groups(psi: Regularizer, parameter: Tensor) -> MeshSum | None:
    """The sum that completes the pieces that psi separates into; None if every one lies on one process."""
    if not is_sharded(parameter):
        return None
    dims = cutting_dims(psi, parameter)
    return MeshSum(parameter.device_mesh, dims) if dims else None


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
