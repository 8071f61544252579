"""A workload as a user would write one: noisy parity of signs, a small network with dropout, noise as augmentation."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ramda_theory.workloads import Settings, Tensors, Workload


class Noise:
    """Adds a little of the drawn numbers to the inputs."""

    draws = 6

    def __call__(self, inputs, draws):
        return inputs + 0.1 * torch.from_numpy(draws - 0.5).float()


def data(folder):
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(120, 6, generator=generator)
    labels = (inputs[:, 0] * inputs[:, 1] > 0).long()
    cut = {"train": slice(0, 72), "validation": slice(72, 96), "test": slice(96, 120)}
    return {n: Tensors((inputs[s], labels[s]), Noise() if n == "train" else None) for n, s in cut.items()}


def model(data):
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Dropout(DROPOUT), nn.Linear(12, 2))


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def score(model, batch):
    return (model(batch[0]).argmax(1) == batch[1]).sum(), len(batch[1])


DROPOUT = 0.3
SETTINGS = {"RAMDA": Settings(3e-2, 0.1, 1e-3), "RMDA": Settings(0.3, 0.1, 1e-3)}
WORKLOAD = Workload("toy", "parity", model, data, loss, score, settings=SETTINGS, batch=12, epochs=6, milestones=(2, 4))
ROWS = np.arange(72)
