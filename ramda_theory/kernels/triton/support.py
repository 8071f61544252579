"""Which parameters the Triton kernels take, and why not the others."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from ramda_theory.kernels.cpu.layout import axis_sizes
from ramda_theory.kernels.cpu.support import group_norms, layout
from ramda_theory.kernels.recurrences import Recurrence
from ramda_theory.kernels.rules import is_grouped, rule_of
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
    if type(parameter) not in (Tensor, Parameter):
        return f"it is a {type(parameter).__name__}"
    if not runs_on(parameter.device):
        return f"it is on {parameter.device}"
    if parameter.dtype not in DTYPES:
        return f"its dtype is {parameter.dtype}"
    if parameter.data_ptr() == 0 or parameter.is_neg():
        return "it has no memory of its own"
    if axis_sizes(tuple(parameter.shape), parameter.stride(), ()) is None:
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
    own = layout(parameter)
    if not alike(gradient, *own, parameter.device):
        return "its gradient has another dtype, device or layout"
    found = rule_of(options["regularizer"], own)
    if isinstance(found, str):
        return found
    rule, (_, rows, kept, size), _ = found
    if is_grouped(rule) and (size if rows == 1 else kept * size) * 256 >= LARGEST:
        return "neighbours in its groups lie too far apart in memory"
    return None


def row(recurrence: Recurrence, work: Work, i: int) -> tuple[tuple[str, torch.device], Row] | str:
    """The key and the row of a table for parameter ``i``, or why the kernels cannot step it."""
    parameter, w, gradient = work.params[i], work.weights[i], work.grads[i]
    if reason := reason_against(work.options, parameter, gradient):
        return reason
    own, device = layout(parameter), parameter.device
    arrays = tuple(array[i] for array in work.arrays)
    if not all(alike(array, torch.float32, *own[1:], device) for array in (w, *arrays)):
        return "its state has another dtype, device or layout"
    step, weight_sum = work.steps[i], work.weight_sums[i] if work.weight_sums else None
    if not _is_number(step, device, torch.int64) or (
        weight_sum is not None and not _is_number(weight_sum, device, torch.float64)
    ):
        return "the numbers of its state are not on its device"
    found = rule_of(work.options["regularizer"], own)
    assert not isinstance(found, str)  # `reason_against` has looked
    rule, sizes, spec = found
    norms = None
    if is_grouped(rule) and recurrence.metric:
        groups = torch.Size((sizes[0] * sizes[2],))
        norms = work.states[i].get("norms")
        if norms is None or not alike(norms, torch.float32, groups, (1,), device):
            norms = work.states[i]["norms"] = group_norms(w, sizes)
    bits = None if w is parameter else parameter
    of_gradient = gradient.dtype, begins_evenly(gradient)
    row = Row(w, bits, arrays, step, weight_sum, norms, sizes, spec, rule, *of_gradient, work.options)
    return ("triton", device), row


def _is_number(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> bool:
    return tensor.dtype is dtype and tensor.device == device and tensor.numel() == 1 and tensor.data_ptr() != 0
