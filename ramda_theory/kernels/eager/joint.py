"""Groups that span tensors: one subproblem of all of them, whose group totals are added up tensor by tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ramda_theory.kernels.eager.solve import Records, minimizer
from ramda_theory.kernels.sharding import is_sharded
from ramda_theory.kernels.work import Work


def is_joint(options: dict[str, Any]) -> bool:
    """Whether psi is one of all tensors of the parameter group together."""
    psi = options["regularizer"]
    return psi is not None and psi.joint_shapes is not None


def check_joint(work: Work) -> None:
    """Refuse a step of some of the tensors only, of tensors at different steps, and of sharded ones.

    Raises
    ------
    RuntimeError
        Naming what is missing.
    """
    shapes = tuple(tuple(parameter.shape) for parameter in work.params)
    expected = work.options["regularizer"].joint_shapes
    if shapes != expected:
        raise RuntimeError(
            f"groups span {len(expected)} parameters, of which {len(shapes)} have a gradient: all must step together"
        )
    if any(is_sharded(parameter) for parameter in work.params):
        raise RuntimeError("groups that span parameters cannot be sharded")
    if len({(parameter.device, w.dtype) for parameter, w in zip(work.params, work.weights, strict=True)}) > 1:
        raise RuntimeError("groups that span parameters must be on one device, in one dtype")
    if all(step.is_cpu for step in work.steps) and len({int(step) for step in work.steps}) > 1:
        raise RuntimeError("groups that span parameters must have taken the same number of steps")


def joint_minimizer(
    base: Sequence[Tensor],
    linear: Sequence[Tensor],
    diag: Sequence[Tensor] | Tensor | float,
    scale: Tensor | float,
    weights: Sequence[Tensor],
    *,
    proximal: bool,
    t: Tensor | float,
    options: dict[str, Any],
    record: Records | None = None,
) -> list[Tensor]:
    """`minimizer` of the vector that holds all tensors, cut into them again."""

    def vector(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([tensor.reshape(-1) for tensor in tensors])

    metric = diag if isinstance(diag, (Tensor, float)) else vector(diag)
    start = vector(weights)
    point = minimizer(
        vector(base),
        vector(linear),
        metric,
        scale,
        proximal=proximal,
        parameter=start,
        start=start,
        t=t,
        options=options,
        record=record,
    )
    parts = torch.split(point, [w.numel() for w in weights])
    return [part.reshape(w.shape) for part, w in zip(parts, weights, strict=True)]
