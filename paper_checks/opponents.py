"""What the step of RAMDA is timed against, and on which parameters.

MADGRAD (Defazio & Jelassi 2022) is written with torch's lists of tensors, as torch's own optimizers are; Algorithm 2 of
arXiv:2403.14398 with whole tensors and a step size per group, which costs it no more than needed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Weight(NamedTuple):
    """Shape of a parameter, and the axes its groups reduce (None: not regularized)."""

    shape: tuple[int, ...]
    dims: tuple[int, ...] | None = None


def linear(outputs: int, inputs: int, bias: bool = True) -> list[Weight]:
    """A fully connected layer, one group per input."""
    return [Weight((outputs, inputs), (0,))] + [Weight((outputs,))] * bias


def convolution(outputs: int, inputs: int, kernel: int) -> list[Weight]:
    """A convolution, one group per input channel, and its batch norm."""
    return [Weight((outputs, inputs, kernel, kernel), (0, 2, 3))] + [Weight((outputs,))] * 2


def mlp(*widths: int) -> list[Weight]:
    """A multilayer perceptron with biases."""
    return [weight for inputs, outputs in itertools.pairwise(widths) for weight in linear(outputs, inputs)]


def resnet_50() -> list[Weight]:
    """ResNet-50 for 1000 classes."""
    weights = convolution(64, 3, 7)
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            weights += convolution(width, inputs, 1) + convolution(width, width, 3) + convolution(4 * width, width, 1)
            weights += convolution(4 * width, inputs, 1) if block == 0 else []
            inputs = 4 * width
    return weights + linear(1000, 2048)


def transformer_xl_layer(width: int = 512, inner: int = 2048) -> list[Weight]:
    """A layer of Transformer-XL base, its head biases and layer norms unregularized."""
    attention = linear(3 * width, width, False) + 2 * linear(width, width, False) + [Weight((8, width // 8))] * 2
    return attention + linear(inner, width) + linear(width, inner) + [Weight((width,))] * 4


def gpt_2_block(width: int = 768) -> list[Weight]:
    """A block of GPT-2 small, weights as (outputs, inputs)."""
    attention = linear(3 * width, width) + linear(width, width)
    return attention + linear(4 * width, width) + linear(width, 4 * width) + [Weight((width,))] * 4


PARAMETER_SETS: dict[str, list[Weight]] = {
    "MLP 64-256-256-10": mlp(64, 256, 256, 10),
    "MLP 6 x 1024": mlp(*[1024] * 7),
    "Transformer-XL, 4 layers": 4 * transformer_xl_layer(),
    "GPT-2 small, 2 blocks": 2 * gpt_2_block(),
    "ResNet-50": resnet_50(),
}
"""Embeddings are left out: they are not regularized, and cost every method the same."""


class DualAverages:
    """The sums V and U of a list of parameters, and P, advanced by torch's operations on lists.

    Parameters
    ----------
    params : iterable of Tensor
    lr, momentum, eps : float
        As in `ramda_theory.optim.RAMDA`.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float, eps: float) -> None:
        self.params = list(params)
        self.lr, self.momentum, self.eps = lr, momentum, eps
        self.t, self.weight_sum = 0, 0.0
        self.anchors = [parameter.detach().clone() for parameter in self.params]
        self.grad_sums = [torch.zeros_like(anchor) for anchor in self.anchors]
        self.grad_sq_sums = [torch.zeros_like(anchor) for anchor in self.anchors]

    def advance(self) -> list[Tensor]:
        """One more gradient; returns P."""
        self.t += 1
        s = self.lr * math.sqrt(self.t)
        self.weight_sum += s
        gradients = [parameter.grad for parameter in self.params]
        torch._foreach_add_(self.grad_sums, gradients, alpha=s)
        torch._foreach_addcmul_(self.grad_sq_sums, gradients, gradients, value=s)
        metrics = torch._foreach_pow(self.grad_sq_sums, 1 / 3)
        torch._foreach_add_(metrics, self.eps)
        return list(metrics)


class MADGRAD(DualAverages):
    """W = (1 - c) W + c (W^0 - P^{-1} V)."""

    @torch.no_grad()
    def step(self) -> None:
        """One step."""
        metrics = self.advance()
        points = torch._foreach_sub(self.anchors, torch._foreach_div(self.grad_sums, metrics))
        torch._foreach_lerp_(self.params, points, 1.0 - self.momentum)


class Algorithm2(DualAverages):
    """RAMDA whose subproblem is solved by Algorithm 2, one step size per group, warm start, group LASSO.

    Parameters
    ----------
    params, lr, momentum, eps
        As in `DualAverages`.
    weight : float
        lambda; lam_g = weight sqrt(n_g).
    dims : sequence
        Of every parameter, the axes its groups reduce, or None.
    tolerance : float
        The iterations stop where every group's residual (9) is at most ``tolerance * weight_sum * lam_g``.
    max_iter : int
        Or after so many.

    Attributes
    ----------
    points : list of Tensor
        The last What.
    iterations : list of int
        Of every regularized parameter in the last step.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float,
        eps: float,
        weight: float,
        dims: Sequence[tuple[int, ...] | None],
        tolerance: float = 1e-3,
        max_iter: int = 100,
    ) -> None:
        super().__init__(params, lr, momentum, eps)
        self.weight, self.dims, self.tolerance, self.max_iter = weight, dims, tolerance, max_iter
        self.points: list[Tensor] = []
        self.iterations: list[int] = []

    @torch.no_grad()
    def step(self) -> None:
        """One step."""
        metrics = self.advance()
        self.iterations = []
        self.points = [self._point(*each) for each in zip(self.params, metrics, range(len(metrics)), strict=True)]
        torch._foreach_lerp_(self.params, self.points, 1.0 - self.momentum)

    def _point(self, w: Tensor, metric: Tensor, i: int) -> Tensor:
        anchor, grad_sum, dims = self.anchors[i], self.grad_sums[i], self.dims[i]
        if dims is None:
            return anchor - grad_sum / metric
        theta = metric.amax(dim=dims, keepdim=True).reciprocal_()
        lam = self.weight_sum * self.weight * math.sqrt(math.prod(w.shape[axis] for axis in dims))
        z, running = w.detach().clone(), torch.ones_like(theta, dtype=torch.bool)
        iteration = 0
        while iteration < self.max_iter and bool(running.any()):
            iteration += 1
            # Z <- prox( Z - theta (V + P (Z - W^0)) ) in the groups that still run
            forward = z - theta * (grad_sum + metric * (z - anchor))
            norms = torch.linalg.vector_norm(forward, dim=dims, keepdim=True)
            z_next = forward * (1.0 - theta * lam / norms).clamp_(min=0.0)
            residual = torch.linalg.vector_norm((metric - 1.0 / theta) * (z_next - z), dim=dims, keepdim=True)
            z = torch.where(running, z_next, z)
            running &= residual > self.tolerance * lam
        self.iterations.append(iteration)
        return z
