"""Gradients that are not finite: found once for all tensors and all processes together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ramda_theory.kernels.sharding import local


class NonFiniteGradient(RuntimeError):
    """A step was refused with ``on_nonfinite="raise"``; nothing has changed."""


def nonfinite_here(params: Sequence[Tensor]) -> Tensor:
    """Whether a gradient's piece holds NaN, Inf, or entries whose squares overflow; a 0-d tensor, not waited for.

    One pass: the Euclidean norms, which all three make non-finite.
    """
    by_kind: dict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
    gradients: list[Any] = [parameter.grad for parameter in params]
    for gradient in gradients:
        piece = local(gradient)
        by_kind[piece.device, piece.dtype].append(piece)
    device = next(iter(by_kind))[0]
    flags = []
    for (_, dtype), pieces in by_kind.items():
        # Half-precision sums would overflow on gradients that are harmless.
        norms = torch._foreach_norm(pieces, 2, dtype=torch.promote_types(dtype, torch.float32))
        flags.append((~torch.stack(norms).isfinite()).any().to(device, non_blocking=True))
    return torch.stack(flags).any()


def nonfinite_parameters(param_groups: Sequence[dict[str, Any]]) -> str:
    """Which parameters have such a gradient, in words."""
    names = []
    for g, group in enumerate(param_groups):
        for i, parameter in enumerate(group["params"]):
            if parameter.grad is None:
                continue
            piece = local(parameter.grad)
            size = torch.linalg.vector_norm(piece, dtype=torch.promote_types(piece.dtype, torch.float32))
            if not bool(size.isfinite()):
                names.append(group["param_names"][i] if "param_names" in group else f"{i} of group {g}")
    if not names:
        return "on another process"
    return f"of parameter{'s' if len(names) > 1 else ''} {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
