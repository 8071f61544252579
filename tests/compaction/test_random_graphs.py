"""Random networks with random zero groups: the compacted one computes the same."""

from collections import Counter

import pytest
import torch
from blocks import network

from ramda_theory.model.compaction import compact

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


@pytest.mark.parametrize("start", range(4))
def test_compacted_networks_compute_the_same(start):
    counts = agree(range(5 * start, 5 * start + 5))
    assert counts["smaller"] >= 4


@pytest.mark.slow
@pytest.mark.parametrize("start", range(20, 180, 20))
def test_compacted_networks_compute_the_same_many(start):
    assert agree(range(start, start + 20))["smaller"] >= 16
