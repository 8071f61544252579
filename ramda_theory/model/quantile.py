"""By what a weight has to be multiplied for a wanted share of the entries to lie in zero groups."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TINY = 1e-30
"""A group with a factor below has no pull: it is zero at any weight."""
NUDGE = 1e-3
"""Distance, in the log, from a factor at which a group would be neither zero nor not."""


def share_below(factors: Tensor, sizes: Tensor) -> float:
    """Share of the entries in groups whose factor is at most 1: those that are zero now."""
    return float(sizes[factors <= 1.0].sum() / sizes.sum())


def log_quantile(factors: Tensor, sizes: Tensor, share: float) -> float:
    """The log of the factor nearest to 1 with which the share of the entries in zero groups is nearest to the wanted.

    It is kept a little away from the groups' own factors, where rounding would decide.
    """
    order = torch.argsort(factors)
    whole, logs = sizes.sum(), factors[order].clamp(min=TINY).log()
    changing = (factors[order] > TINY) & torch.isfinite(factors[order])
    reached = torch.cat([sizes[factors <= TINY].sum()[None], torch.cumsum(sizes[order], 0)[changing]]) / whole
    nearest = int(torch.argmin((reached - share).abs()))
    bounds: list[float] = [-math.inf, *logs[changing].tolist(), math.inf]
    low, high = bounds[nearest] + NUDGE, bounds[nearest + 1] - NUDGE
    if low >= high:
        return 0.5 * (low + high)
    return min(max(0.0, low), high)
