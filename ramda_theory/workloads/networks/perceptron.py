"""Fully connected networks on flattened images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them; two widths make a linear classifier.

    Parameters
    ----------
    widths : sequence of int
        Inputs, hidden layers, outputs.

    Returns
    -------
    torch.nn.Sequential
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
