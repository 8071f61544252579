"""Random networks with random zero groups: the compacted one computes the same."""

import copy
from collections import Counter

import pytest
import torch
from blocks import network
from torch import nn

from ramda_theory.model import compact
from ramda_theory.model.compaction.equality import relative

TOLERANCE = 1e-12


def other_inputs(x: torch.Tensor) -> torch.Tensor:
    """Inputs of another batch size, that nothing was traced with."""
    if x.is_floating_point():
        return torch.randn(5, *x.shape[1:], dtype=x.dtype)
    return torch.randint(0, 11, (5, *x.shape[1:]))


def agree(seeds) -> Counter:
    counts: Counter = Counter()
    for seed in seeds:
        model, x = network(seed)
        before = [p.detach().clone() for p in model.parameters()]
        small = compact(model, x)
        torch.manual_seed(seed)
        assert small.check(other_inputs(x)) <= TOLERANCE, seed
        assert all(torch.equal(p, own) for p, own in zip(model.parameters(), before, strict=True)), seed
        was, now = small.parameters
        assert now <= was
        counts["smaller"] += now < was
        counts["parameters"] += was - now
        counts |= {reason: counts[reason] + 1 for reason in small.unknown}
        counts["held"] += any("forward" in each.why for each in small.kept)
    return counts


@pytest.mark.parametrize("start", range(2))
def test_compacted_networks_compute_the_same(start):
    counts = agree(range(5 * start, 5 * start + 5))
    assert counts["smaller"] >= 4


def agree_in_training(seeds) -> int:
    """How many networks became smaller; batch norm computes its own statistics in all of them, none has dropout."""
    smaller = 0
    for seed in seeds:
        model, x = network(seed)
        if any(isinstance(module, nn.Dropout) for module in model.modules()):
            continue
        small = compact(model, x, training=True, low_rank=False)
        smaller += small.parameters[1] < small.parameters[0]
        with torch.no_grad():
            one, other = (copy.deepcopy(each).train()(x) for each in (model, small.model))
        assert relative([one], [other]) <= TOLERANCE, seed
    return smaller


def test_in_training_mode():
    assert agree_in_training((1, 3, 5, 7)) >= 2


@pytest.mark.slow
def test_in_training_mode_many():
    assert agree_in_training(range(9, 80, 2)) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("start", range(10, 170, 20))
def test_compacted_networks_compute_the_same_many(start):
    assert agree(range(start, start + 20))["smaller"] >= 16
