"""The fused step of RAMDA: which tensors the compiled loops of `native` take, and how threads share the work.

What the loops do not take, the plain path does.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from ramda_theory.optim.lists import Lists, Work, may_look
from ramda_theory.optim.nonfinite import nonfinite_somewhere
from ramda_theory.optim.sharding import meshes
from ramda_theory.optim.solving import is_exact
from ramda_theory.regularizers import L1, ElasticNet, GroupLasso, Regularizer

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
"""Lengths of the axes (kept, reduced, kept, reduced) that a tensor has to the loops."""


class Task(NamedTuple):
    """What the loops do with one tensor.

    Attributes
    ----------
    tensors : tuple of Tensor
        W, G, W^0, V, U: float32, of one shape, with the same strides and without gaps.
    norms : Tensor, optional
        One number per group: where its equation is solved from, and afterwards ||What_g||.  None without groups.
    clock : tuple of Tensor
        t, float32, and alpha, float64; the step advances them.
    sizes : Sizes
        Group (i, k) is [i, :, k, :].
    rates : tuple of float
        1 or -1, the sign of G; eta (where it is 0, only t changes); eps; lam_g (negative: no psi); l2; c.
    """

    tensors: tuple[Tensor, ...]
    norms: Tensor | None
    clock: tuple[Tensor, Tensor]
    sizes: Sizes
    rates: tuple[float, ...]


class Report(NamedTuple):
    """Blocks of columns, passes that found the norms there, groups solved one by one, groups on which that failed."""

    blocks: int
    passes: int
    alone: int
    failed: int


# -- what the loops take ----------------------------------------------------------------------------------------------


def step(
    work: Sequence[Work],
    state: dict[Tensor, Any],
    forget: Callable[[], None],
    check: bool = False,
    recording: bool = False,
) -> list[Work] | None:
    """Step the parameters that the compiled loops take, by one call for all, and return the others.

    Parameters
    ----------
    work : list
        Parameter groups, with lists of parameters, gradients, weights, W^0, V, U, t, alpha.
    state : dict
        The optimizer's.  A parameter's gets ``norms`` of its groups: they decide the last bits of W, so a run that is
        resumed bit for bit needs them.
    forget : callable
        Called before a refusal: removes the state that was made for this step.
    check : bool
        Whether to refuse gradients, those of the others too, that are not finite: then the result is None.
    recording : bool
        Whether the step is to say how well it solved its subproblems, which the loops cannot.

    Raises
    ------
    RuntimeError
        With ``fused=True``, before anything has changed, if the loops leave any.
    """
    left: list[Work] = []
    taken = []
    for options, lists in work:
        reason = "its inexactness is recorded" if recording else obstacle(options, lists[6])
        sizes = [None if reason else sizes_of(options["regularizer"], *each) for each in zip(*lists[:6], strict=True)]
        others = [i for i, size in enumerate(sizes) if size is None]
        if others and options["fused"]:
            forget()
            shape = tuple(lists[0][others[0]].shape)
            reason = reason or "not float32 on the CPU, or of an unusual layout"
            raise RuntimeError(f"fused=True cannot step a parameter of shape {shape} ({reason}); fused=None can")
        if others:
            left.append((options, [[tensors[i] for i in others] for tensors in lists]))
        taken.append((options, lists, sizes))
    if check and left:
        # What is shared with other processes is decided with them, about all gradients.
        alone = not meshes([gradient for _, lists in left for gradient in lists[1]])
        looked_at: Sequence[Work] = left if alone else work
        if nonfinite_somewhere([parameter for _, lists in looked_at for parameter in lists[0]]):
            forget()
            return None
        check = alone
    if tasks := [task for each in taken for task in _tasks(*each, state)]:
        report = run(tasks, check)
        if report is None:
            forget()
            return None
        if report.failed:
            raise RuntimeError("the equation of a group was not solved; its weights are NaN")
    return left


def obstacle(options: dict[str, Any], steps: Sequence[Tensor]) -> str | None:
    """Why the loops cannot step a parameter group; None if they can."""
    psi = options["regularizer"]
    if options["fused"] is False:
        return "fused=False"
    if not may_look(options, steps):
        return "it is compiled or captured, or its numbers are on a device"
    if type(psi) not in (type(None), L1, ElasticNet, GroupLasso) or getattr(psi, "labels", None) is not None:
        return f"no loops for {psi!r}"
    if not is_exact(psi, options["solver"]):
        return f"no loops for the solver {options['solver']!r}"
    return None if loops() else "numba cannot be imported"


@lru_cache(maxsize=1)
def loops() -> ModuleType | None:
    """The compiled loops, None without numba.  Their first call compiles, for seconds; the result is kept on disk."""
    try:
        from ramda_theory.optim import native
    except ImportError:
        return None
    return native


def sizes_of(psi: Regularizer | None, parameter: Tensor, *others: Tensor) -> Sizes | None:
    """How the loops see a parameter, if its gradient, weights and state (``others``) let them."""
    if not _plain(parameter) or parameter.is_inference():
        return None
    shape, stride, size, contiguous = parameter.shape, parameter.stride(), parameter.numel(), parameter.is_contiguous()
    for tensor in others:
        if tensor is parameter:
            continue
        if not _plain(tensor) or tensor.numel() != size:
            return None
        # Contiguous tensors of one size are alike to the loops.
        if not (tensor.is_contiguous() if contiguous else tensor.stride() == stride and tensor.shape == shape):
            return None
    return _axis_sizes(shape, stride, psi.dims if isinstance(psi, GroupLasso) else ())


def _plain(tensor: Tensor) -> bool:
    """Whether this is a float32 tensor in the memory of the CPU, and nothing that only looks like one."""
    return tensor.dtype is torch.float32 and tensor.is_cpu and type(tensor) in (Tensor, Parameter)


@lru_cache(maxsize=4096)
def _axis_sizes(shape: tuple[int, ...], stride: tuple[int, ...], dims: tuple[int, ...]) -> Sizes | None:
    """`Sizes` of a tensor in which the axes ``dims`` are reduced; None where the loops cannot go through it."""
    sizes, position, entries = [1, 1, 1, 1], 3, 1
    reduced = {dim % len(shape) for dim in dims}
    for axis in sorted((a for a in range(len(shape)) if shape[a] != 1), key=lambda a: stride[a]):
        if stride[axis] != entries:
            return None  # gaps, or entries that share memory
        entries *= shape[axis]
        if (axis in reduced) != (position in (1, 3)):
            position -= 1
        if position < 0:
            return None
        sizes[position] *= shape[axis]
    outer, rows, kept, size = sizes
    native: Any = loops()
    if not entries or (rows > 1 and size > native.WIDTH) or (dims and outer * kept < 4):
        return None  # with few groups, the copies of one that solving it alone takes are no small part of the tensor
    return outer, rows, kept, size


def _tasks(
    options: dict[str, Any], lists: Lists, sizes: Sequence[Sizes | None], state: dict[Tensor, Any]
) -> Iterator[Task]:
    """What is to be done with the parameters that have ``sizes``."""
    psi, sign = options["regularizer"], -1.0 if options["maximize"] else 1.0
    eta, eps, c = max(float(options["lr"]), 0.0), options["eps"], 1.0 - float(options["momentum"])
    grouped = isinstance(psi, GroupLasso)
    for parameter, g, w, anchor, v, u, step, weight_sum, size in zip(*lists, sizes, strict=True):
        if size is not None:
            lam, l2 = scaled(psi, size)
            norms = _norms(state[parameter], w, size) if grouped and lam > 0 else None
            yield Task((w, g, anchor, v, u), norms, (step, weight_sum), size, (sign, eta, eps, lam, l2, c))


def scaled(psi: Regularizer | None, sizes: Sizes) -> tuple[float, float]:
    """lam_g and l2 of psi; -1 and 0 where it is nothing."""
    if psi is None:
        return -1.0, 0.0
    if isinstance(psi, GroupLasso):
        return psi.weight * (math.sqrt(sizes[1] * sizes[3]) if psi.size_scaled else 1.0) or -1.0, 0.0
    return psi.weight, psi.l2 if isinstance(psi, ElasticNet) else 0.0


def _norms(state: dict[str, Tensor], w: Tensor, sizes: Sizes) -> Tensor:
    """||What_g|| of the last step; at first, ||W_g||."""
    groups = sizes[0] * sizes[2]
    if "norms" not in state or state["norms"].shape != (groups,):
        w = torch.as_strided(w.detach(), sizes, [math.prod(sizes[k + 1 :]) for k in range(4)])
        state["norms"] = torch.linalg.vector_norm(w, dim=(1, 3)).reshape(groups)
    return state["norms"]


# -- the work ---------------------------------------------------------------------------------------------------------


def run(tasks: Sequence[Task], check: bool = False) -> Report | None:
    """t, alpha, V_t, U_t, What_t and W_t of all tasks, in place; the result does not depend on the number of threads.

    With ``check`` nothing changes, and the result is None, unless the norm of every gradient is a finite float32.
    """
    native: Any = loops()
    units, batches, sizes = _plan(
        tuple([(task.sizes, task.norms is not None) for task in tasks]), torch.get_num_threads()
    )
    addresses = []
    for (w, g, anchor, v, u), norms, (step, weight_sum), _, _ in tasks:
        state = anchor.data_ptr(), v.data_ptr(), u.data_ptr(), 0 if norms is None else norms.data_ptr()
        addresses.append((w.data_ptr(), g.data_ptr(), *state, step.data_ptr(), weight_sum.data_ptr()))
    table, rates = np.array(addresses), np.array([task.rates for task in tasks])
    report = np.zeros(4, dtype=np.int64)
    if len(batches) == 1:
        if not native.run_all(units, table, sizes, rates, check, report):
            return None
    else:
        if check and not all_finite([task.tensors[1] for task in tasks]):
            return None
        numbers = native.begin(table, rates)

        def work(first: int, last: int) -> np.ndarray:
            report = np.zeros(4, dtype=np.int64)
            native.run(units[first:last], table, sizes, numbers, report)
            return report

        report = sum(_shared(batches, work))
    # Autograd must notice that W has changed.
    torch.autograd.graph.increment_version([task.tensors[0] for task in tasks])
    return Report(*report.tolist())


def all_finite(gradients: Sequence[Tensor]) -> bool:
    """Whether the norm of every gradient, which the loops can go through, is a finite float32."""
    native: Any = loops()
    units, batches, _ = _plan(tuple([((1, 1, 1, g.numel()), False) for g in gradients]), torch.get_num_threads())
    addresses = np.array([gradient.data_ptr() for gradient in gradients])
    if len(batches) < FEW:
        totals = native.squares(units, addresses)
    else:
        totals = sum(_shared(batches, lambda first, last: native.squares(units[first:last], addresses)))
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
    futures = [_pool(os.getpid(), helpers).submit(some, ends[(k + 1) % 2]) for k in range(helpers)]
    results = some(ends[0])
    for future in futures:
        results += future.result()
    return results


@lru_cache(maxsize=2)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads that wait for work; a forked process has none of its parent's."""
    return ThreadPoolExecutor(threads, thread_name_prefix="ramda")


@lru_cache(maxsize=64)
def _plan(
    tensors: tuple[tuple[Sizes, bool], ...], workers: int
) -> tuple[np.ndarray, list[tuple[int, int]], np.ndarray]:
    """The units of work (tensor, first group, last group + 1), which of them make one call, and all sizes."""
    enough = max(WORTHWHILE, sum(math.prod(sizes) for sizes, _ in tensors) // (BATCHES * workers))
    units: list[tuple[int, int, int]] = []
    batches: list[tuple[int, int]] = []
    begun, weights = 0, 0
    for tensor, (sizes, grouped) in enumerate(tensors):
        for first, last in _parts(sizes, grouped, enough):
            units.append((tensor, first, last))
            weights += (last - first) * (sizes[1] * sizes[3] if grouped else 1)
            if weights >= enough:
                batches.append((begun, len(units)))
                begun, weights = len(units), 0
    if begun < len(units):
        batches.append((begun, len(units)))
    return np.array(units), batches, np.array([sizes for sizes, _ in tensors])


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
