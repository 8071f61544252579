"""Weights lambda so large that a layer would die: at or above the critical weight of its gradient."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ramda_theory.regularizers import Regularizer


def critical_weights(groups: Iterable[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Weight and critical weight of every regularized parameter that has a gradient other than zero.

    The critical weight is the smallest for which zero is stationary at the present gradient
    (`Regularizer.critical_weight`): where the weight is not below it, no group's gradient holds out against psi.  The
    gradient of one batch is taken for that of the smooth part; noise makes the critical weight larger, not smaller.

    Parameters
    ----------
    groups : iterable of mapping
        Parameter groups of an optimizer.

    Returns
    -------
    dict
        By name of the parameter: (weight, critical weight).
    """
    found: dict[str, tuple[float, float]] = {}
    for i, group in enumerate(groups):
        psi: Regularizer | None = group.get("regularizer")
        if psi is None:
            continue
        if psi.joint_shapes is not None:
            # Groups span the parameters: there is one vector, and no layer that would die alone.
            gradients = [parameter.grad for parameter in group["params"]]
            if all(g is not None and not hasattr(g, "full_tensor") for g in gradients):
                vector = torch.cat([g.detach().reshape(-1) for g in gradients if g is not None])
                if vector.any():
                    found[f"the parameters of group {i} together"] = psi.weight, float(psi.critical_weight(vector))
            continue
        names = group.get("param_names") or [f"group {i}, parameter {j}" for j in range(len(group["params"]))]
        for name, parameter in zip(names, group["params"], strict=True):
            gradient = parameter.grad
            if gradient is None or hasattr(gradient, "full_tensor") or not gradient.any():
                continue
            found[name] = psi.weight, float(psi.critical_weight(gradient.detach()))
    return found


def warn_of_critical_weights(groups: Iterable[Mapping[str, Any]], stacklevel: int = 3) -> None:
    """Warn of weights at or above the critical one; nothing happens without gradients."""
    dying = {name: pair for name, pair in critical_weights(groups).items() if pair[0] >= pair[1]}
    if dying:
        words = [f"{name} (weight {weight:g}, critical {critical:.2g})" for name, (weight, critical) in dying.items()]
        more = f" and {len(words) - 5} more" if len(words) > 5 else ""
        warnings.warn(
            f"the weight of the regularizer is at or above the critical one, at which a whole layer becomes zero, for "
            f"{', '.join(words[:5])}{more}",
            stacklevel=stacklevel + 1,
        )
