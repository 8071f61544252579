"""Two optimizers taking turns on gradients from a pool: what one step of each takes, and the ratio."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

MOST_STEPS = 10
"""Of one turn."""


class Runner:
    """An optimizer with its parameters and the gradients it gets in turn.

    Parameters
    ----------
    make : callable
        Parameters -> optimizer.
    start : list of Tensor
        Copied.
    pool : list of lists of Tensor
        Gradients of all parameters, one list per step, used over and over.
    fresh : bool
        Give every step copies of the gradients, in new memory.
    """

    def __init__(
        self,
        make: Callable[[list[Tensor]], Any],
        start: Sequence[Tensor],
        pool: Sequence[Sequence[Tensor]],
        fresh: bool,
    ) -> None:
        self.params: list[Tensor] = [torch.nn.Parameter(tensor.clone()) for tensor in start]
        self.optimizer = make(self.params)
        self._pool, self._fresh = itertools.cycle(pool), fresh

    def step(self) -> float:
        """One step with the next gradients; its seconds."""
        gradients: list[Tensor] = list(next(self._pool))
        if self._fresh:
            gradients = [gradient.clone() for gradient in gradients]
        for parameter, gradient in zip(self.params, gradients, strict=True):
            parameter.grad = gradient
        clock = time.perf_counter()
        self.optimizer.step()
        seconds = time.perf_counter() - clock
        if self._fresh:
            self.optimizer.zero_grad(set_to_none=True)
        return seconds

    def warm_up(self, steps: int, seconds: float) -> float:
        """At most so many steps in about so much time, at least two; seconds of the last."""
        end, last = time.perf_counter() + seconds, 0.0
        for k in range(steps):
            last = self.step()
            if k and time.perf_counter() > end:
                break
        return last


class Times(NamedTuple):
    """Milliseconds of a step and of the baseline's, their ratio with its lowest and highest over repeats, and the ratio
    of the fastest steps, which what else the machine does disturbs least."""

    ms: float
    baseline_ms: float
    ratio: float
    low: float
    high: float
    fastest: float


def compare(runner: Runner, baseline: Runner, repeats: int, warm_up: int, seconds: float) -> Times:
    """Medians over repeats in which the two take turns, going first in turn.

    Parameters
    ----------
    runner, baseline : Runner
    repeats : int
    warm_up : int
        Steps of either before the clock counts.
    seconds : float
        About how long the warm-up and all repeats of ``runner`` may take: fewer steps per turn where each is long.
    """
    last = runner.warm_up(warm_up, 0.4 * seconds)
    baseline.warm_up(warm_up, 0.4 * seconds)
    steps = max(1, min(MOST_STEPS, int(0.6 * seconds / repeats / last)))
    repeats = max(1, min(repeats, int(0.6 * seconds / last)))
    pairs: list[tuple[list[float], list[float]]] = []
    for repeat in range(repeats):
        turns = [(runner, steps), (baseline, MOST_STEPS)]
        taken = {}
        for each, count in turns if repeat % 2 else reversed(turns):
            each.step()  # what the other has put out of the caches comes back
            taken[each] = [each.step() for _ in range(count)]
        pairs.append((taken[runner], taken[baseline]))
    medians = [(statistics.median(own), statistics.median(theirs)) for own, theirs in pairs]
    ratios = [own / theirs for own, theirs in medians]
    ms, baseline_ms = (1e3 * statistics.median(column) for column in zip(*medians, strict=True))
    fastest = min(min(own) for own, _ in pairs) / min(min(theirs) for _, theirs in pairs)
    return Times(ms, baseline_ms, statistics.median(ratios), min(ratios), max(ratios), fastest)
