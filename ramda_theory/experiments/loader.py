"""The batches of an epoch, prepared ahead in threads, with the time that the training waits for them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ramda_theory.workloads.examples import Batch, Examples

if TYPE_CHECKING:
    import torch


@dataclass
class Loader:
    """Batches of a data set, of which every process takes its share.

    The rows of a step and the random numbers of its samples depend on ``seed``, epoch and step alone, so that a run
    sees the same however many threads and processes share the work, and when it is resumed.

    Parameters
    ----------
    examples : Examples
    batch : int
        Of all processes together.
    seed : int
    device : torch.device
        Where batches are put.
    workers : int
        Threads; 0 prepares a batch when it is asked for.
    rank, world : int
        Which of how many processes this is; ``world`` divides ``batch``.
    limit : int, optional
        At most so many batches of a pass.

    Attributes
    ----------
    waited : float
        Seconds that whoever asked for batches has waited for them.
    """

    examples: Examples
    batch: int
    seed: int
    device: torch.device
    workers: int = 0
    rank: int = 0
    world: int = 1
    limit: int | None = None
    waited: float = field(default=0.0, init=False)

    @property
    def steps(self) -> int:
        """Steps of an epoch; a last, partial batch is left out."""
        whole = len(self.examples.order(np.random.default_rng(0), self.batch)) // self.batch
        return whole if self.limit is None else min(whole, self.limit)

    def epoch(self, number: int) -> Iterator[Batch]:
        """This process's share of the batches of an epoch, augmented."""
        order = self.examples.order(np.random.default_rng((self.seed, number)), self.batch)
        share = slice(self.rank * self.batch // self.world, (self.rank + 1) * self.batch // self.world)

        def job(step: int) -> Batch:
            rows = order[step * self.batch : (step + 1) * self.batch][share]
            rng = np.random.default_rng((self.seed, number, step + 1))
            draws = rng.random((self.batch, self.examples.draws)) if self.examples.draws else None
            return self.examples.fetch(rows, None if draws is None else draws[share])

        return self._batches(job, self.steps)

    def all(self) -> Iterator[tuple[Batch, bool]]:
        """This process's share of all samples in order, without augmentation; the last batch may be smaller.

        With every batch comes whether it counts: a process without a share of a small batch is given a sample to keep
        step with the others, which they count.
        """
        in_strands = type(self.examples).order is not Examples.order
        rows = np.arange(len(self.examples))
        if in_strands:
            rows = self.examples.order(np.random.default_rng(0), self.batch)
        count = -(-len(rows) // self.batch)
        count = count if self.limit is None else min(count, self.limit)

        def share(step: int) -> np.ndarray:
            whole = rows[step * self.batch : (step + 1) * self.batch]
            # a strand stays with its process
            return np.array_split(whole, self.world)[self.rank] if in_strands else whole[self.rank :: self.world]

        def job(step: int) -> Batch:
            own = share(step)
            return self.examples.fetch(own if len(own) else rows[:1], None)

        for step, batch in enumerate(self._batches(job, count)):
            yield batch, len(share(step)) > 0

    def _batches(self, job: Callable[[int], Batch], count: int) -> Iterator[Batch]:
        """The results of ``job(0)``, ``job(1)``, ... on the device, in order."""
        if not self.workers:
            for step in range(count):
                clock = time.perf_counter()
                batch = self._placed(job(step))
                self.waited += time.perf_counter() - clock
                yield batch
            return
        with ThreadPoolExecutor(self.workers) as pool:
            ahead: deque[Future[Batch]] = deque()
            try:
                for step in range(count):
                    while len(ahead) < 2 * self.workers and step + len(ahead) < count:
                        ahead.append(pool.submit(job, step + len(ahead)))
                    clock = time.perf_counter()
                    batch = self._placed(ahead.popleft().result())
                    self.waited += time.perf_counter() - clock
                    yield batch
            finally:
                for future in ahead:
                    future.cancel()

    def _placed(self, batch: Batch) -> Batch:
        if self.device.type == "cpu":
            return batch
        return tuple(each.pin_memory().to(self.device, non_blocking=True) for each in batch)
