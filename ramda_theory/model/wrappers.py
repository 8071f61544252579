"""The torch optimizer inside the wrappers that trainers put around it."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer


def unwrapped(optimizer: Any) -> Optimizer:
    """The innermost of what follows from ``optimizer`` by its attribute ``optimizer``.

    Wrappers of accelerate, Lightning and DeepSpeed have this attribute, whether or not they are optimizers themselves;
    torch's optimizers do not have it.

    Raises
    ------
    TypeError
        If no torch optimizer is found there.
    """
    found = optimizer
    seen: list[Any] = []
    while getattr(found, "optimizer", None) is not None and not any(found is each for each in seen):
        seen.append(found)
        found = found.optimizer
    if not isinstance(found, Optimizer):
        raise TypeError(f"optimizer must be a torch optimizer, got {optimizer!r}")
    return found
