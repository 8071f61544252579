"""Options that were changed between steps: checked again by the first step that sees them."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ramda_theory.optim.options import Check, check_fit, check_lrs, check_together, scheduled_lr

AS_TENSORS = ("lr", "momentum")
"""Options that stay tensors if they come as such, to be changed in place."""
NUMBERS = {"lr", "momentum", "betas", "weight_decay", "tolerance", "max_iter", "maximize"}
"""Options that go with any others, and any regularizer and parameters."""


class ChangedOptions:
    """The checks of the options of all parameter groups, made only where something differs from what passed before.

    An option is looked at when another object lies in its place that is not equal to the one before; a tensor on the
    host also when its number has changed in place.  Numbers in tensors on other devices, which would have to be waited
    for, are not looked at, nor is anything while ``torch.compile`` traces (but for a number lr).

    Parameters
    ----------
    checks : dict
        A check for every option, which returns the value to be stored or raises.
    """

    def __init__(self, checks: dict[str, Check]) -> None:
        self._checks = {**checks, "lr": scheduled_lr}
        self._keys = (*checks, "params")
        self._read = operator.itemgetter(*self._keys)
        self._passed: list[tuple[Any, ...]] = []
        self._host_tensors: list[list[tuple[Tensor, float]]] = []

    def __call__(self, groups: Sequence[dict[str, Any]]) -> None:
        """Check what has changed in the groups since the last call that passed.

        Raises
        ------
        TypeError, ValueError
            Naming the group, the option, its value and what is allowed; nothing has changed then.
        """
        if torch.compiler.is_compiling():
            check_lrs(groups)
        elif len(groups) != len(self._passed) or any(map(self._differs, groups, self._passed, self._host_tensors)):
            self._check(groups)

    def _differs(self, group: dict[str, Any], passed: tuple[Any, ...], tensors: list[tuple[Tensor, float]]) -> bool:
        try:
            if self._read(group) != passed:
                return True
        except (KeyError, ValueError, RuntimeError):  # an option is gone, or is an array
            return True
        return bool(tensors) and any(tensor.item() != number for tensor, number in tensors)

    def _check(self, groups: Sequence[dict[str, Any]]) -> None:
        passed = self._passed if len(groups) == len(self._passed) else [()] * len(groups)
        before = [dict(zip(self._keys, values, strict=False)) for values in passed]
        checked: list[dict[str, Any]] = []
        for index, group in enumerate(groups):
            with named_group(index):
                checked.append(self._changed(group, before[index]))
        refit = [
            bool(values.keys() - NUMBERS) or group["params"] is not old.get("params")
            for group, values, old in zip(groups, checked, before, strict=True)
        ]
        options = [{**group, **values} for group, values in zip(groups, checked, strict=True)]
        for index, (group, new) in enumerate(zip(options, refit, strict=True)):
            with named_group(index):
                if any(refit):
                    check_together(group, options[0]["on_nonfinite"])
                if new:
                    check_fit(group, self._checks)
        for group, values in zip(groups, checked, strict=True):
            group.update(values)
        self._passed = [self._read(group) for group in groups]
        self._host_tensors = [
            [(group[key], group[key].item()) for key in AS_TENSORS if key in group and on_host(group[key])]
            for group in groups
        ]

    def _changed(self, group: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
        """The options that are not the objects that passed, or tensors on the host, checked."""
        changed: dict[str, Any] = {}
        for key, check in self._checks.items():
            if key not in group:
                raise ValueError(f"the option {key!r} is gone")
            value = group[key]
            if value is before.get(key, self) and not on_host(value):
                continue
            waits = key in AS_TENSORS and isinstance(value, Tensor) and not value.is_cpu and value.numel() == 1
            changed[key] = value if waits else check(value)
        return changed


@contextmanager
def named_group(index: int) -> Iterator[None]:
    """Begin the message of an error with the group it is about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"param_groups[{index}]: {error}") from error


def on_host(value: Any) -> bool:
    """Whether ``value`` is a tensor whose number can be read without waiting for a device."""
    return isinstance(value, Tensor) and value.is_cpu
