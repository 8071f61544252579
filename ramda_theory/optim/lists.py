"""How the updates go through lists of tensors: in chunks or one by one, looking at numbers or not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import _default_to_fused_or_foreach

from ramda_theory.kernels.sharding import local, local_gradient

Lists = Sequence[Sequence[Tensor]]

Work = tuple[dict[str, Any], list[list[Tensor]]]
"""A parameter group and what a step needs of its parameters: themselves, gradients, weights, then their state."""


def on_device(options: dict[str, Any]) -> bool:
    """Whether the numbers of a step must stay tensors: it is captured, or depends on what a device computes."""
    lr = options["lr"]
    return (
        options["capturable"]
        or options["on_nonfinite"] == "skip"
        or (isinstance(lr, Tensor) and lr.device.type != "cpu")
    )


def may_look(options: dict[str, Any], steps: Sequence[Tensor]) -> bool:
    """Whether reading the numbers of the state costs nothing: they are on the host, and nothing is being traced."""
    on_host = all(step.is_cpu for step in steps)
    return on_host and not on_device(options) and not torch.compiler.is_compiling()


def chunks(foreach: bool | None, params: Sequence[Tensor], steps: Sequence[Tensor], lists: Lists) -> Iterator[Lists]:
    """The lists cut into chunks that one ``torch._foreach`` call can take: of one device, dtype and step.

    ``foreach=False`` yields one tensor at a time, so that temporaries are no larger than the largest tensor; by
    default that is so unless every parameter is a plain tensor on an accelerator.
    """
    if foreach is None:
        _, foreach = _default_to_fused_or_foreach(list(params), differentiable=False)
    members: dict[Any, list[int]] = defaultdict(list)
    for i, (parameter, step) in enumerate(zip(params, steps, strict=True)):
        members[(parameter.device, parameter.dtype, step.item()) if foreach else i].append(i)
    for chosen in members.values():
        yield [[tensors[i] for i in chosen] for tensors in lists]


def gradients(
    grads: Sequence[Tensor], params: Sequence[Tensor], weights: Sequence[Tensor], keep: Tensor | None = None
) -> list[Tensor]:
    """This process's pieces of the gradients, in the precision of the weights; zeros where ``keep`` is true."""
    wide = [
        local_gradient(grad, parameter).to(w.dtype) for grad, parameter, w in zip(grads, params, weights, strict=True)
    ]
    return wide if keep is None else [torch.where(keep, 0.0, gradient) for gradient in wide]


def pieces(tensors: Sequence[Tensor]) -> list[Tensor]:
    """This process's pieces."""
    return [local(tensor) for tensor in tensors]


def read_weights(params: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    """This process's pieces of the weights; a parameter that was changed from outside overrules its float32 copy."""
    for parameter, w in zip(params, weights, strict=True):
        if parameter is not w:
            p, w = local(parameter), local(w)
            w.copy_(torch.where(p == w.to(p.dtype), w, p.to(w.dtype)))
    return pieces(weights)


def write_weights(params: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
    """Round the float32 weights of half-precision parameters into them."""
    for parameter, w in zip(params, weights, strict=True):
        if parameter is not w:
            local(parameter).copy_(local(w))


def assign(target: Tensor, value: Tensor, keep: Tensor | None) -> None:
    """target <- value, unless ``keep`` is true."""
    value = value.reshape(target.shape)
    target.copy_(value if keep is None else torch.where(keep, target, value))


def scalar(value: Tensor | float) -> Tensor | float:
    """A one-element tensor without axes; a number as it is."""
    return value.reshape(()) if isinstance(value, Tensor) else value


def still(lr: Tensor | float, keep: Tensor | None) -> Tensor | None:
    """Flag that the weights must stay as they are: ``keep``, or lr = 0; None if neither is possible."""
    if not isinstance(lr, Tensor) and lr > 0:
        return keep
    zero = torch.as_tensor(lr) == 0
    return zero if keep is None else keep | zero
