"""Which parameters the compiled loops take, and why not the others."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import Parameter

from ramda_theory.kernels.cpu.launch import compiled_module
from ramda_theory.kernels.cpu.layout import Sizes, axis_sizes, row_major
from ramda_theory.kernels.cpu.tables import Row
from ramda_theory.kernels.recurrences import Recurrence
from ramda_theory.kernels.rules import Layout, is_grouped, rule_of
from ramda_theory.kernels.work import Work
from ramda_theory.subproblem import Exact

LR_IS_ZERO = "lr = 0 leaves the weights alone"
"""No engine would be faster."""


def missing() -> str | None:
    """Why there are no compiled loops here; None if there are."""
    return None if compiled_module() else "it needs numba (pip install 'ramda_theory[cpu]') and a folder to write to"


def group_reason(options: dict[str, Any]) -> str | None:
    """Why the loops cannot step any parameter of a group; None if they can."""
    psi, lr = options["regularizer"], options["lr"]
    if options.get("fused") is False:
        return "fused=False"
    if torch.compiler.is_compiling():
        return "the step is being compiled by torch"
    if options["capturable"]:
        return "capturable=True keeps numbers on the device"
    if isinstance(lr, Tensor) and not lr.is_cpu:
        return "the lr is on a device"
    if not float(lr) > 0:
        return LR_IS_ZERO
    if psi is not None and psi.joint_shapes is not None:
        return "its groups span several parameters"
    if psi is not None and psi.kernel() is None:
        return f"no loops for {psi!r}"
    if not (options.get("solver") in (None, "exact") or isinstance(options.get("solver"), Exact)):
        return f"no loops for the solver {options['solver']!r}"
    return missing()


def reason_against(options: dict[str, Any], parameter: Tensor, gradient: Tensor) -> str | None:
    """Why the loops cannot step a parameter, whatever its state; None if they can."""
    if reason := group_reason(options) or tensor_reason(parameter):
        return reason
    own = layout(parameter)
    if not alike(gradient, *own):
        return "its gradient has another dtype, device or layout"
    found = rule_of(options["regularizer"], own)
    return found if isinstance(found, str) else None


def row(recurrence: Recurrence, work: Work, i: int) -> tuple[tuple[int, int], Row] | str:
    """The rule, the dtype and the row of a table for parameter ``i``, or why the loops cannot step it."""
    parameter, w, step = work.params[i], work.weights[i], work.steps[i]
    if reason := reason_against(work.options, parameter, work.grads[i]):
        return reason
    arrays = tuple(array[i] for array in work.arrays)
    own = layout(parameter)
    if not all(alike(array, torch.float32, *own[1:]) for array in (w, *arrays)):
        return "its state has another dtype, device or layout"
    weight_sum = work.weight_sums[i] if work.weight_sums else None
    if not _is_number(step, torch.int64) or (weight_sum is not None and not _is_number(weight_sum, torch.float64)):
        return "the numbers of its state are not on the host"
    module: Any = compiled_module()
    rule, sizes, spec = cast(Any, rule_of(work.options["regularizer"], own))
    norms = None
    if recurrence.metric and is_grouped(rule):
        norms = work.states[i].get("norms")
        if norms is None or not alike(norms, torch.float32, torch.Size((sizes[0] * sizes[2],)), (1,)):
            norms = work.states[i]["norms"] = group_norms(w, sizes)
    dtypes = {torch.float32: module.FLOAT32, torch.bfloat16: module.BFLOAT16, torch.float16: module.FLOAT16}
    bits = None if w is parameter else parameter
    return (rule, dtypes[parameter.dtype]), Row(w, bits, arrays, step, weight_sum, norms, sizes, spec)


def tensor_reason(parameter: Tensor) -> str | None:
    """Why the loops cannot go through a parameter; None if they can."""
    if type(parameter) not in (Tensor, Parameter):
        return f"it is a {type(parameter).__name__}"
    if not parameter.is_cpu:
        return f"it is on {parameter.device}"
    if parameter.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"its dtype is {parameter.dtype}"
    if parameter.is_inference():
        return "it was made in inference mode"
    if parameter.data_ptr() == 0 or parameter.is_neg():
        return "it has no memory of its own"
    if axis_sizes(tuple(parameter.shape), parameter.stride(), ()) is None:
        return "its entries do not fill its memory"
    return None


def layout(tensor: Tensor) -> Layout:
    """Dtype, shape and strides (those of axes of length 1 do not count)."""
    stride = row_major(tuple(tensor.shape)) if tensor.is_contiguous() else tensor.stride()
    return tensor.dtype, tensor.shape, stride


def alike(tensor: Tensor, dtype: torch.dtype, shape: torch.Size, stride: tuple[int, ...]) -> bool:
    """Whether the loops can go through a tensor as through one of this layout."""
    return (
        tensor.dtype is dtype
        and tensor.shape == shape
        and (tensor.stride() == stride or (tensor.is_contiguous() and stride == row_major(tuple(shape))))
        and tensor.is_cpu
        and type(tensor) in (Tensor, Parameter)
        and tensor.data_ptr() != 0  # a symbol of zeros, or its memory was given away
        and not tensor.is_neg()
    )


def _is_number(tensor: Tensor, dtype: torch.dtype) -> bool:
    return tensor.dtype is dtype and tensor.is_cpu and tensor.numel() == 1 and tensor.data_ptr() != 0


def group_norms(w: Tensor, sizes: Sizes) -> Tensor:
    """||W_g|| of every group, where its equation is solved from at first."""
    w = torch.as_strided(w.detach(), sizes, row_major(sizes))
    norms: Tensor = torch.linalg.vector_norm(w, dim=(1, 3)).reshape(-1)
    return norms
