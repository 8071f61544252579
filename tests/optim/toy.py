"""A small noisy problem on which every optimizer can be run, for NumPy arrays and torch tensors alike."""

import numpy as np
import torch

from ramda_theory.optim import RAMDA, RMDA, NormalMapSGD, ProxAdamW, ProxSGD

CLASSES = (RAMDA, RMDA, ProxSGD, ProxAdamW, NormalMapSGD)


class NoisyQuadratic:
    """Gradients h (w - target) + noise_t, with curvatures h over two decades and a target with zero columns."""

    def __init__(self, shape=(6, 5), steps=200, seed=0):
        rng = np.random.default_rng(seed)
        self.curvature = 10 ** rng.uniform(-1, 1, shape)
        self.target = rng.normal(size=shape)
        self.target[..., ::2] = 0
        self.noise = 0.3 * rng.normal(size=(steps, *shape))
        self.start = rng.normal(size=shape)

    def gradient(self, w, t):
        """At step t = 1, 2, ..."""
        parts = self.curvature, self.target, self.noise[t - 1]
        if isinstance(w, torch.Tensor):
            parts = (torch.as_tensor(part, dtype=w.dtype, device=w.device) for part in parts)
        curvature, target, noise = parts
        return curvature * (w - target) + noise

    def parameter(self, dtype=torch.float64, device="cpu"):
        return torch.nn.Parameter(torch.tensor(self.start, dtype=dtype, device=device))


def train(optimizer, parameter, problem, steps, first=1, after=None):
    """Run the optimizer; ``after`` is called after every step."""
    for t in range(first, first + steps):
        parameter.grad = problem.gradient(parameter.detach(), t)
        optimizer.step()
        if after is not None:
            after()
    return parameter.detach().clone()


def structured(optimizer, parameter):
    """A copy of What."""
    with optimizer.structured_point():
        return parameter.detach().clone()
