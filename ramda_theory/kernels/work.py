"""What a step needs of the parameters of one group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Work:
    """Parameters of one group that have a gradient, and what belongs to them, as lists of equal length.

    Parameters
    ----------
    options : dict
        The parameter group.
    params, grads : list of Tensor
        The model's own.
    weights : list of Tensor
        W: the parameters themselves, or the float32 copies of half-precision ones.
    arrays : list of lists of Tensor
        The state's, in the order of `Recurrence.arrays`.
    steps : list of Tensor
        t, int64.
    weight_sums : list of Tensor
        alpha, float64; empty for methods without sums.
    states : list of dict
        The optimizer's state of each parameter.
    """

    options: dict[str, Any]
    params: list[Tensor]
    grads: list[Tensor]
    weights: list[Tensor]
    arrays: list[list[Tensor]]
    steps: list[Tensor]
    weight_sums: list[Tensor]
    states: list[dict[str, Any]]

    def select(self, positions: Sequence[int]) -> Work:
        """The work of some of the parameters."""
        if len(positions) == len(self.params):
            return self

        def some(tensors: list[Any]) -> list[Any]:
            return [tensors[i] for i in positions] if tensors else []

        return Work(
            self.options,
            some(self.params),
            some(self.grads),
            some(self.weights),
            [some(array) for array in self.arrays],
            some(self.steps),
            some(self.weight_sums),
            some(self.states),
        )

    def tensors(self) -> list[Tensor]:
        """All of them but the gradients and what only some parameters have."""
        return [
            *self.params,
            *self.weights,
            *(t for array in self.arrays for t in array),
            *self.steps,
            *self.weight_sums,
        ]


def device_scalars(options: dict[str, Any]) -> bool:
    """Whether the numbers of a step must stay tensors: it is captured, or depends on what a device computes."""
    lr = options["lr"]
    return (
        options["capturable"]
        or options["on_nonfinite"] == "skip"
        or (isinstance(lr, Tensor) and lr.device.type != "cpu")
    )


def host_scalars(options: dict[str, Any], steps: Sequence[Tensor]) -> bool:
    """Whether reading the numbers of the state costs nothing: they are on the host, and nothing is being traced."""
    return not device_scalars(options) and not torch.compiler.is_compiling() and all(step.is_cpu for step in steps)
