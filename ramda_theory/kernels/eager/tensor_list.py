"""Arithmetic of many tensors at once, by torch's ``_foreach`` functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class TensorList:
    """Tensors of one device and dtype on which plain arithmetic acts one by one.

    Parameters
    ----------
    tensors : sequence of Tensor

    Notes
    -----
    The other operand is a `TensorList` of equal length, or a number.
    """

    __slots__ = ("tensors",)

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)

    def _with(self, function: Callable[..., Any], other: Any) -> TensorList:
        return TensorList(function(self.tensors, other.tensors if isinstance(other, TensorList) else other))

    def __add__(self, other: Any) -> TensorList:
        return self._with(torch._foreach_add, other)

    def __mul__(self, other: Any) -> TensorList:
        return self._with(torch._foreach_mul, other)

    def __sub__(self, other: TensorList) -> TensorList:
        return self._with(torch._foreach_sub, other)

    def __truediv__(self, other: Any) -> TensorList:
        return self._with(torch._foreach_div, other)

    __radd__ = __add__
    __rmul__ = __mul__


Arrays = TensorList | Tensor


def together(tensors: Sequence[Tensor]) -> Arrays:
    """What a recurrence computes with: one tensor as it is (which may be traced), more as a `TensorList`."""
    return tensors[0] if len(tensors) == 1 else TensorList(tensors)


def apart(arrays: Any) -> list[Tensor]:
    """The tensors again."""
    return arrays.tensors if isinstance(arrays, TensorList) else [arrays]


def cube_root(arrays: Arrays) -> Arrays:
    """Of entries >= 0."""
    return (
        TensorList(torch._foreach_pow(arrays.tensors, 1 / 3)) if isinstance(arrays, TensorList) else arrays.pow(1 / 3)
    )


def square_root(arrays: Arrays) -> Arrays:
    """Of entries >= 0."""
    return TensorList(torch._foreach_sqrt(arrays.tensors)) if isinstance(arrays, TensorList) else arrays.sqrt()
