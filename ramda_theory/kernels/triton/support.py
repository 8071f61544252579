"""Which parameters the Triton kernels take, and why not the others."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from ramda_theory.kernels.cpu.layout import Sizes, axis_sizes
from ramda_theory.kernels.cpu.support import group_norms, layout
from ramda_theory.kernels.recurrences import Recurrence
from ramda_theory.kernels.rules import Spec, is_grouped, rule_of
from ramda_theory.kernels.sharding import is_sharded, local, mesh_sum_of_groups
from ramda_theory.kernels.triton.rows import Row, alike, begins_evenly
from ramda_theory.kernels.work import Work
from ramda_theory.subproblem import Exact

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LARGEST = 2**31
"""Entries that offsets within a tile may span."""
LEAST_WEIGHT = 1e-12
"""Of a group: with smaller ones the squares of float32 that its equation is made of may leave their range."""


@cache
def missing() -> str | None:
    """Why there are no kernels here; None if there are."""
    if not find_spec("triton"):
        return "it needs triton (pip install 'ramda_theory[gpu]')"
    if not (torch.cuda.is_available() or interpreted()):
        return "it needs a GPU, or TRITON_INTERPRET=1 in the environment"
    return None


@cache
def interpreted() -> bool:
    """Whether kernels are interpreted on the CPU, for tests, instead of compiled for a device."""
    from ramda_theory.kernels.triton.arithmetic import INTERPRETED

    return bool(INTERPRETED.value)


def runs_on(device: torch.device) -> bool:
    """Whether kernels can step what lies on a device."""
    return missing() is None and device.type == ("cpu" if interpreted() else "cuda")


def group_reason(options: dict[str, Any]) -> str | None:
    """Why the kernels cannot step any parameter of a group; None if they can."""
    psi = options["regularizer"]
    if options.get("fused") is False:
        return "fused=False"
    if torch.compiler.is_compiling():
        return "the step is being compiled by torch"
    for name in ("lr", "momentum"):
        value = options.get(name)
        if isinstance(value, Tensor) and not value.is_cpu and value.dtype not in (torch.float32, torch.float64):
            return f"its {name} is a tensor of {value.dtype}"
    if psi is not None and psi.joint_shapes is not None:
        return "its groups span several parameters"
    if psi is not None and (spec := psi.kernel()) is None:
        return f"no kernel for {psi!r}"
    if psi is not None and spec.group_gamma is not None:
        return f"no kernel for {psi!r}"
    if psi is not None and 0 < spec.group_weight < LEAST_WEIGHT:
        return f"its groups' weight is below {LEAST_WEIGHT:g}"
    if not (options.get("solver") in (None, "exact") or isinstance(options.get("solver"), Exact)):
        return f"no kernel for the solver {options['solver']!r}"
    return missing()


def tensor_reason(parameter: Tensor) -> str | None:
    """Why the kernels cannot go through a parameter; None if they can."""
    if is_sharded(parameter) and any(place.is_partial() for place in parameter.placements):
        return "its processes hold summands"
    piece = local(parameter)
    if type(piece) not in (Tensor, Parameter):
        return f"it is a {type(piece).__name__}"
    if not runs_on(piece.device):
        return f"it is on {piece.device}"
    if piece.dtype not in DTYPES:
        return f"its dtype is {piece.dtype}"
    if is_sharded(parameter) and not piece.numel():
        return None
    if piece.data_ptr() == 0 or piece.is_neg():
        return "it has no memory of its own"
    if axis_sizes(tuple(piece.shape), piece.stride(), ()) is None:
        return "its entries do not fill its memory"
    return None


def reason_against(options: dict[str, Any], parameter: Tensor, gradient: Tensor) -> str | None:
    """Why the kernels cannot step a parameter, whatever its state; None if they can."""
    if reason := group_reason(options) or tensor_reason(parameter):
        return reason
    for name in ("lr", "momentum"):
        value = options.get(name)
        if isinstance(value, Tensor) and not value.is_cpu and value.device != parameter.device:
            return f"its {name} is on {value.device}"
    if is_sharded(parameter) != is_sharded(gradient):
        return "it or its gradient alone is cut across processes"
    piece = local(parameter)
    if not alike(local(gradient), *layout(piece), piece.device):
        return "its gradient has another dtype, device or layout"
    psi = options["regularizer"]
    if is_sharded(parameter):
        return sharded_reason(psi, parameter)
    return memory_reason(rule_of(psi, layout(parameter)))


def memory_reason(found: tuple[int, Sizes, Spec] | str) -> str | None:
    """Why the kernels cannot follow what `rule_of` found; None if they can."""
    if isinstance(found, str):
        return found
    rule, (_, rows, kept, size), _ = found
    if is_grouped(rule) and (size if rows == 1 else kept * size) * 256 >= LARGEST:
        return "neighbours in its groups lie too far apart in memory"
    return None


def sharded_reason(psi: Any, parameter: Any) -> str | None:
    """Why the kernels cannot step the groups of a DTensor; None if they can.

    All processes must say the same, so that only what they know alike counts, of the whole tensor.
    """
    spec = None if psi is None else psi.kernel()
    if spec is None or not spec.group_weight:
        return None
    if psi.piece_axes(tuple(parameter.shape)) is None:
        return "its groups are no slices of it, and it is cut across processes"
    if not parameter.is_contiguous():
        return "it has groups and is cut across processes, but not contiguous"
    return memory_reason(rule_of(psi, layout(parameter), parameter.shape))


def row(recurrence: Recurrence, work: Work, i: int) -> tuple[tuple[str, torch.device], Row] | str:
    """The key and the row of a table for parameter ``i``, or why the kernels cannot step it."""
    parameter, w, gradient = work.params[i], work.weights[i], work.grads[i]
    if reason := reason_against(work.options, parameter, gradient):
        return reason
    psi, piece, device = work.options["regularizer"], local(parameter), parameter.device
    own, arrays = local(w), tuple(local(array[i]) for array in work.arrays)
    if not all(alike(array, torch.float32, *layout(piece)[1:], device) for array in (own, *arrays)):
        return "its state has another dtype, device or layout"
    step, weight_sum = work.steps[i], work.weight_sums[i] if work.weight_sums else None
    if not _is_number(step, device, torch.int64) or (
        weight_sum is not None and not _is_number(weight_sum, device, torch.float64)
    ):
        return "the numbers of its state are not on its device"
    found = rule_of(psi, layout(piece), parameter.shape if is_sharded(parameter) else None)
    assert not isinstance(found, str)  # `reason_against` has looked
    rule, sizes, spec = found
    cut = mesh_sum_of_groups(psi, parameter) if is_grouped(rule) else None
    if cut is not None and not piece.is_contiguous():  # others might go on, and wait for this process
        raise RuntimeError(f"a parameter of shape {tuple(parameter.shape)} has a piece that is not contiguous")
    norms = None
    if is_grouped(rule) and recurrence.metric:
        norms = work.states[i].get("norms")
        if norms is None or not alike(norms, torch.float32, torch.Size((sizes[0] * sizes[2],)), (1,), device):
            # Of cut groups no process knows the norms, but all must begin with the same.
            begin = group_norms(own, sizes) if cut is None and own.numel() else own.new_zeros(sizes[0] * sizes[2])
            norms = work.states[i]["norms"] = begin
    bits = None if w is parameter else piece
    of_gradient = gradient.dtype, begins_evenly(local(gradient))
    row = Row(own, bits, arrays, step, weight_sum, norms, sizes, spec, rule, *of_gradient, work.options, cut)
    return ("triton", device), row


def _is_number(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> bool:
    return tensor.dtype is dtype and tensor.device == device and tensor.numel() == 1 and tensor.data_ptr() != 0
