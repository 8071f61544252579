"""What the kernels need to know of one tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from ramda_theory.kernels.cpu.layout import Sizes, row_major
from ramda_theory.kernels.rules import L1, is_grouped
from ramda_theory.kernels.sharding import MeshSum


@dataclass(frozen=True)
class Row:
    """One tensor of a table, or this process's piece of it.

    Parameters
    ----------
    weight : Tensor
        W in float32.
    bits : Tensor, optional
        The parameter itself, if it is in half precision.
    arrays : tuple of Tensor
        Of the state, in the order of `Recurrence.arrays`.
    step : Tensor
        t, int64.
    weight_sum : Tensor, optional
        alpha, float64.
    norms : Tensor, optional
        Of the groups, from the step before, if the method's metric is an array.
    sizes, spec, rule
        As `rule_of` says.
    dtype : torch.dtype
        Of the parameter and its gradient, which is not kept.
    even : bool
        Whether the gradient began at a multiple of 16 bytes.
    options : dict
        The parameter group.
    cut : MeshSum, optional
        What completes the totals of its groups, which are cut across processes; None: each is whole here.
    """

    weight: Tensor
    bits: Tensor | None
    arrays: tuple[Tensor, ...]
    step: Tensor
    weight_sum: Tensor | None
    norms: Tensor | None
    sizes: Sizes
    spec: tuple[float, float, float]
    rule: int
    dtype: torch.dtype
    even: bool
    options: dict[str, Any]
    cut: MeshSum | None = None

    def addresses(self, norms: int) -> list[int]:
        """As the columns of the table of addresses; ``norms``: where there is room for them, if `needs_room`."""
        arrays = [array.data_ptr() for array in self.arrays]
        norms = norms if self.needs_room else self.kept_norms
        return [
            self.weight.data_ptr(),
            0 if self.bits is None else self.bits.data_ptr(),
            *arrays,
            *[0] * (3 - len(arrays)),
            norms,
            self.step.data_ptr(),
            0 if self.weight_sum is None else self.weight_sum.data_ptr(),
        ]

    @property
    def needs_room(self) -> bool:
        """Whether its norms, between two launches, are not in the state."""
        return self.norms is None or self.cut is not None

    @property
    def kept_norms(self) -> int:
        """Address of the norms in its state; 0 without."""
        return 0 if self.norms is None else self.norms.data_ptr()

    @property
    def aligned(self) -> bool:
        """Whether its arrays begin at multiples of 16 bytes."""
        own = (self.weight, self.bits, *self.arrays)
        return self.even and all(begins_evenly(tensor) for tensor in own if tensor is not None)

    @property
    def groups(self) -> int:
        """How many groups it has."""
        return self.sizes[0] * self.sizes[2] if is_grouped(self.rule) else 0

    def alike(self, gradient: Tensor, dtype: torch.dtype, shape: torch.Size, stride: tuple[int, ...]) -> bool:
        """Whether a later gradient can be gone through as the first one was."""
        same = alike(gradient, dtype, shape, stride, self.weight.device)
        return same and (not self.even or begins_evenly(gradient))

    def numbers(self) -> tuple[float, ...]:
        """As the columns of the table of what its regularizer is."""
        weight, number, group_weight = self.spec
        fixed, scaled = (0.0, number) if self.rule == L1 else (weight, 0.0)
        return weight, fixed, scaled, number, group_weight


def alike(tensor: Tensor, dtype: torch.dtype, shape: torch.Size, stride: tuple[int, ...], device: torch.device) -> bool:
    """Whether the kernels can go through a tensor as through one of this layout and device."""
    return (
        tensor.dtype is dtype
        and tensor.shape == shape
        and (tensor.stride() == stride or (tensor.is_contiguous() and stride == row_major(tuple(shape))))
        and tensor.device == device
        and type(tensor) in (Tensor, Parameter)
        and (tensor.data_ptr() != 0 or not tensor.numel())
        and not tensor.is_neg()
    )


def begins_evenly(tensor: Tensor) -> bool:
    """Whether loads of 16 bytes may begin where a tensor does."""
    return tensor.data_ptr() % 16 == 0
