"""How the compiled functions are called: made once with a word about it, run by one thread or by several."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch


@lru_cache(maxsize=1)
def compiled_module() -> ModuleType | None:
    """`ramda_theory.kernels.cpu.variants`; None without Numba that compiles and a folder where it keeps functions."""
    try:
        import numba

        if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
            return None
        from ramda_theory.kernels.cpu import variants
    except ImportError:
        return None
    try:
        with announced():
            variants.squares(variants.FLOAT32)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        message = "no folder to keep compiled steps in (NUMBA_CACHE_DIR may name one); the eager engine steps instead"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return None
    return variants


@contextmanager
def announced() -> Iterator[None]:
    """Say on stderr, once per process, what the wait is for, as soon as something inside is compiled.

    What is read from disk takes no time that needs a word.
    """
    from numba.core import event

    class Announcement(event.Listener):  # type: ignore[misc]
        def on_start(self, event: Any) -> None:
            if not _said.is_set():
                _said.set()
                print(
                    "ramda_theory: compiling the step for this CPU; it takes seconds, once, and is kept on disk",
                    file=sys.stderr,
                    flush=True,
                )

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Announcement()):
        yield


_said = threading.Event()


def shared(batches: Sequence[Any], work: Callable[[Any], Any]) -> list[Any]:
    """The results of ``work`` on all batches, in any order, by as many threads as torch uses.

    Threads take batches from the two ends of the list, so that they do not meet in neighbouring columns of a tensor.
    """
    waiting = deque(batches)

    def some(take: Callable[[], Any]) -> list[Any]:
        results: list[Any] = []
        while True:
            try:
                batch = take()
            except IndexError:
                return results
            results.append(work(batch))

    ends = waiting.popleft, waiting.pop
    helpers = min(torch.get_num_threads(), len(batches)) - 1
    futures: list[Future[list[Any]]] = []
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
