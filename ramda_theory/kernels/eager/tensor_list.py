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
    The other operand is a `TensorList` of equal length, a number, or a 0-d tensor.
    """

    __slots__ = ("tensors",)

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)

    def _with(self, function: Callable[..., Any], other: Any) -> TensorList:
        return TensorList(function(self.tensors, other.tensors if isinstance(other, TensorList) else self._cast(other)))

    def _cast(self, number: Any) -> Any:
        """A 0-d tensor in the dtype of the tensors, so that it does not widen them."""
        return number.to(self.tensors[0].dtype) if isinstance(number, Tensor) else number

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

    def cube_root(self) -> TensorList:
        """Of entries >= 0."""
        return TensorList(torch._foreach_pow(self.tensors, 1 / 3))

    def square_root(self) -> TensorList:
        """Of entries >= 0."""
        return TensorList(torch._foreach_sqrt(self.tensors))
