"""How the compiled loops of `native` are called: once for small models, by several threads for large ones."""

from __future__ import annotations

import math
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch

WORTHWHILE = 2**17
"""Weights that are worth a call of their own, or another thread."""
LARGEST_BLOCK = 2**22
"""Weights that are traversed together at most: what is together decides the last bits, so threads have no say in it."""
BATCHES = 32
"""Calls among which a thread's share of the work is divided, so that no thread waits long for another."""
FEW = 8
"""Batches of gradients that one thread has looked through by the time another has begun."""

LARGEST_NUMBER = float(np.finfo(np.float32).max)

Sizes = tuple[int, int, int, int]
"""Lengths of the axes (kept, reduced, kept, reduced) that a tensor has to the loops: group (i, k) is [i, :, k, :]."""

Kind = tuple[Sizes, bool]
"""Sizes of a tensor, and whether it has groups."""


class Report(NamedTuple):
    """Blocks of columns, passes that found the norms there, groups solved one by one, groups on which that failed."""

    blocks: int
    passes: int
    alone: int
    failed: int


@lru_cache(maxsize=1)
def loops() -> ModuleType | None:
    """The compiled loops, None without numba.  Their first call ever compiles; the result is kept on disk."""
    try:
        from ramda_theory.optim import native
    except ImportError:
        return None
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        message = "no folder to keep RAMDA's compiled loops in (NUMBA_CACHE_DIR may name one); it takes the plain path"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return None
    return native


def run(kinds: tuple[Kind, ...], addresses: np.ndarray, rates: np.ndarray, check: bool = False) -> Report | None:
    """t, alpha, V_t, U_t, What_t and W_t of all tensors, in place; the result does not depend on the number of threads.

    Parameters
    ----------
    kinds : tuple of Kind
        One per tensor.
    addresses, rates : arrays, (tensors, 8) and (tensors, 6)
        As in `native.run_all`.
    check : bool
        Change nothing, and return None, unless the norm of every gradient is a finite float32.
    """
    native: Any = loops()
    units, batches, sizes = _plan(kinds, torch.get_num_threads())
    report = np.zeros(4, dtype=np.int64)
    if len(batches) == 1:
        if not native.run_all(units, addresses, sizes, rates, check, report):
            return None
    else:
        if check and not _all_finite(sizes, addresses[:, 1].copy()):
            return None
        numbers = native.begin(addresses, rates)

        def work(first: int, last: int) -> np.ndarray:
            report = np.zeros(4, dtype=np.int64)
            native.run(units[first:last], addresses, sizes, numbers, report)
            return report

        report = sum(_shared(batches, work))
    return Report(*report.tolist())


def _all_finite(sizes: np.ndarray, gradients: np.ndarray) -> bool:
    """Whether the norm of every gradient is a finite float32."""
    native: Any = loops()
    entries = sizes.prod(axis=1).tolist()
    units, batches, _ = _plan(tuple([((1, 1, 1, n), False) for n in entries]), torch.get_num_threads())
    if len(batches) < FEW:
        totals = native.squares(units, gradients)
    else:
        totals = sum(_shared(batches, lambda first, last: native.squares(units[first:last], gradients)))
    return bool((totals <= LARGEST_NUMBER).all())


def _shared(batches: Sequence[tuple[int, int]], work: Callable[[int, int], Any]) -> list[Any]:
    """The results of ``work`` on all batches, in any order, by as many threads as torch uses.

    Threads take batches from the two ends of the list, so that they do not meet in neighbouring columns of a tensor.
    """
    waiting = deque(batches)

    def some(take: Callable[[], tuple[int, int]]) -> list[Any]:
        results: list[Any] = []
        while True:
            try:
                batch = take()
            except IndexError:
                return results
            results.append(work(*batch))

    ends = waiting.popleft, waiting.pop
    helpers = min(torch.get_num_threads(), len(batches)) - 1
    futures: list[Future] = []
    try:
        with suppress(RuntimeError):  # while the interpreter shuts down, there are no new threads
            futures += (_pool(os.getpid(), helpers).submit(some, ends[(k + 1) % 2]) for k in range(helpers))
        results = some(ends[0])
    finally:
        # After an interrupt nobody may go on with memory that its owner gives away.
        waiting.clear()
        wait(futures)
    for future in futures:
        results += future.result()
    return results


@lru_cache(maxsize=2)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads that wait for work; a forked process has none of its parent's."""
    return ThreadPoolExecutor(threads, thread_name_prefix="ramda")


@lru_cache(maxsize=64)
def _plan(kinds: tuple[Kind, ...], workers: int) -> tuple[np.ndarray, list[tuple[int, int]], np.ndarray]:
    """The units of work (tensor, first group, last group + 1), which of them make one call, and all sizes."""
    enough = max(WORTHWHILE, sum(math.prod(sizes) for sizes, _ in kinds) // (BATCHES * workers))
    units: list[tuple[int, int, int]] = []
    batches: list[tuple[int, int]] = []
    begun, weights = 0, 0
    for tensor, (sizes, grouped) in enumerate(kinds):
        for first, last in _parts(sizes, grouped, enough):
            units.append((tensor, first, last))
            weights += (last - first) * (sizes[1] * sizes[3] if grouped else 1)
            if weights >= enough:
                batches.append((begun, len(units)))
                begun, weights = len(units), 0
    if begun < len(units):
        batches.append((begun, len(units)))
    return np.array(units), batches, np.array([sizes for sizes, _ in kinds])


def _parts(sizes: Sizes, grouped: bool, enough: int) -> Iterator[tuple[int, int]]:
    """Ranges of groups (of entries, without groups) that are one unit of work."""
    outer, rows, kept, size = sizes
    if not grouped:
        outer, kept, at_once = 1, math.prod(sizes), enough
    elif rows == 1:
        at_once = max(enough // size, 1)
    else:
        # As wide as possible, since narrow blocks are slow where memory is, and all of about the same width.
        native: Any = loops()
        widest = max(min(native.WIDTH, LARGEST_BLOCK // rows) // size, 1)
        at_once = -(-kept // -(-kept // widest))
    for i in range(outer):
        for first in range(i * kept, (i + 1) * kept, at_once):
            yield first, min(first + at_once, (i + 1) * kept)
