"""The fused step of RAMDA: which tensors the compiled loops of `native` take, and how threads share the work.

What the loops do not take, the plain path does.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from ramda_theory.optim.dual_averaging import advance
from ramda_theory.optim.lists import Lists, may_look
from ramda_theory.optim.solving import is_exact
from ramda_theory.regularizers import L1, ElasticNet, GroupLasso, Regularizer

WORTHWHILE = 2**17
"""Weights that are worth a call of their own, or another thread."""

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
    sizes : Sizes
        Group (i, k) is [i, :, k, :].
    numbers : tuple of float
        s with the sign of G, s, eps, weight_sum lam_g (negative: no psi), weight_sum l2, c.
    """

    tensors: tuple[Tensor, ...]
    norms: Tensor | None
    sizes: Sizes
    numbers: tuple[float, ...]


class Report(NamedTuple):
    """Blocks of columns, passes that found the norms there, groups solved one by one, groups on which that failed."""

    blocks: int
    passes: int
    alone: int
    failed: int


# -- what the loops take ----------------------------------------------------------------------------------------------


def step(options: dict[str, Any], state: dict[Tensor, Any], lists: Lists, recording: bool = False) -> Lists:
    """Step the parameters that the compiled loops take, and return the lists of the others.

    Parameters
    ----------
    options : dict
        The parameter group.
    state : dict
        The optimizer's.  A parameter's gets ``norms`` of its groups: they decide the last bits of W, so a run that is
        resumed bit for bit needs them.
    lists : lists of Tensor
        Parameters, gradients, weights, W^0, V, U, t, alpha.
    recording : bool
        Whether the step is to say how well it solved its subproblems, which the loops cannot.

    Raises
    ------
    RuntimeError
        With ``fused=True``, before anything has changed, if the loops leave any.
    """
    reason = "its inexactness is recorded" if recording else obstacle(options, lists[6])
    sizes = [None if reason else sizes_of(options["regularizer"], *each) for each in zip(*lists[:6], strict=True)]
    left = [i for i, size in enumerate(sizes) if size is None]
    if left and options["fused"]:
        shape, reason = tuple(lists[0][left[0]].shape), reason or "not float32 on the CPU, or of an unusual layout"
        raise RuntimeError(f"fused=True cannot step a parameter of shape {shape} ({reason}); fused=None can")
    tasks = list(_tasks(options, state, lists, sizes)) if len(left) < len(sizes) else []
    if tasks and run(tasks).failed:
        raise RuntimeError("the equation of a group was not solved; its weights are NaN")
    return [[tensors[i] for i in left] for tensors in lists]


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


def _width() -> int:
    native: Any = loops()
    return native.WIDTH


def sizes_of(psi: Regularizer | None, parameter: Tensor, *others: Tensor) -> Sizes | None:
    """How the loops see a parameter, if its gradient, weights and state (``others``) let them."""
    if type(parameter) not in (Tensor, Parameter) or parameter.is_inference():
        return None
    shape, stride = parameter.shape, parameter.stride()
    for tensor in (parameter, *others):
        if tensor.dtype is not torch.float32 or not tensor.is_cpu or tensor.stride() != stride or tensor.shape != shape:
            return None
    return _axis_sizes(tuple(shape), stride, psi.dims if isinstance(psi, GroupLasso) else ())


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
    if not entries or (rows > 1 and size > _width()) or (dims and outer * kept < 4):
        return None  # with few groups, the copies of one that solving it alone takes are no small part of the tensor
    return outer, rows, kept, size


def _tasks(
    options: dict[str, Any], state: dict[Tensor, Any], lists: Lists, sizes: Sequence[Sizes | None]
) -> Iterator[Task]:
    """Advance t and alpha of the parameters that have ``sizes``, and say what is to be done with their tensors."""
    psi, c = options["regularizer"], 1.0 - float(options["momentum"])
    by_step: dict[float, list[tuple[int, Sizes]]] = defaultdict(list)
    for i, size in enumerate(sizes):
        if size is not None:
            by_step[lists[6][i].item()].append((i, size))
    for members in by_step.values():
        # s_t = eta sqrt(t),  alpha_t = alpha_{t-1} + s_t
        _, s, alphas = advance([lists[6][i] for i, _ in members], [lists[7][i] for i, _ in members], options["lr"])
        if s == 0:
            continue
        signed = -s if options["maximize"] else s
        for (i, size), alpha in zip(members, alphas, strict=True):
            lam, l2 = scaled(psi, size, alpha)
            norms = None
            if isinstance(psi, GroupLasso) and lam > 0:
                norms = _norms(state[lists[0][i]], lists[2][i], size)
            tensors = tuple(lists[k][i] for k in (2, 1, 3, 4, 5))
            yield Task(tensors, norms, size, (signed, s, options["eps"], lam, l2, c))


def scaled(psi: Regularizer | None, sizes: Sizes, weight_sum: float) -> tuple[float, float]:
    """weight_sum times lam_g and l2 of psi; -1 and 0 where it is nothing."""
    if psi is None:
        return -1.0, 0.0
    lam = weight_sum * psi.weight
    if isinstance(psi, GroupLasso):
        lam *= math.sqrt(sizes[1] * sizes[3]) if psi.size_scaled else 1.0
        return (lam if np.float32(lam) > 0 else -1.0), 0.0
    return lam, weight_sum * psi.l2 if isinstance(psi, ElasticNet) else 0.0


def _norms(state: dict[str, Tensor], w: Tensor, sizes: Sizes) -> Tensor:
    """||What_g|| of the last step; at first, ||W_g||."""
    groups = sizes[0] * sizes[2]
    if "norms" not in state or state["norms"].shape != (groups,):
        w = torch.as_strided(w.detach(), sizes, [math.prod(sizes[k + 1 :]) for k in range(4)])
        state["norms"] = torch.linalg.vector_norm(w, dim=(1, 3)).reshape(groups)
    return state["norms"]


# -- the work ---------------------------------------------------------------------------------------------------------


def run(tasks: Sequence[Task]) -> Report:
    """V_t, U_t, What_t and W_t of all tasks, in place, on as many threads as torch uses.

    Threads take parts from the two ends of the list, so that they do not meet in neighbouring columns of a tensor.  The
    result does not depend on how many there are.
    """
    native: Any = loops()
    workers = torch.get_num_threads()
    units, batches = _plan(tuple((task.sizes, task.norms is not None) for task in tasks), workers)
    addresses = [
        [tensor.data_ptr() for tensor in task.tensors] + [0 if task.norms is None else task.norms.data_ptr()]
        for task in tasks
    ]
    table = np.array(addresses), np.array([task.sizes for task in tasks]), np.array([task.numbers for task in tasks])
    waiting = deque(batches)

    def work(take: Callable[[], tuple[int, int]]) -> np.ndarray:
        report = np.zeros(4, dtype=np.int64)
        while True:
            try:
                first, last = take()
            except IndexError:
                return report
            native.run(units[first:last], *table, report)

    ends = waiting.popleft, waiting.pop
    helpers = min(workers, len(batches)) - 1
    futures = [_pool(os.getpid(), helpers).submit(work, ends[(k + 1) % 2]) for k in range(helpers)]
    report = sum((future.result() for future in futures), start=work(ends[0]))
    # Autograd must notice that W has changed.
    torch.autograd.graph.increment_version([task.tensors[0] for task in tasks])
    return Report(*report.tolist())


@lru_cache(maxsize=2)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads that wait for work; a forked process has none of its parent's."""
    return ThreadPoolExecutor(threads, thread_name_prefix="ramda")


@lru_cache(maxsize=64)
def _plan(tensors: tuple[tuple[Sizes, bool], ...], workers: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The units of work (tensor, first group, last group + 1), and which of them make one call."""
    most = max(WORTHWHILE, -(-sum(math.prod(sizes) for sizes, _ in tensors) // workers))
    units: list[tuple[int, int, int]] = []
    batches: list[tuple[int, int]] = []
    begun, weights = 0, 0
    for tensor, (sizes, grouped) in enumerate(tensors):
        for first, last in _parts(sizes, grouped, most):
            units.append((tensor, first, last))
            weights += (last - first) * (sizes[1] * sizes[3] if grouped else 1)
            if weights >= WORTHWHILE:
                batches.append((begun, len(units)))
                begun, weights = len(units), 0
    if begun < len(units):
        batches.append((begun, len(units)))
    return np.array(units), batches


def _parts(sizes: Sizes, grouped: bool, most: int) -> Iterator[tuple[int, int]]:
    """Ranges of groups (of entries, without groups) that are one unit of work."""
    outer, rows, kept, size = sizes
    if not grouped:
        outer, kept, at_once = 1, math.prod(sizes), WORTHWHILE
    elif rows == 1:
        at_once = max(WORTHWHILE // size, 1)
    else:
        # As wide as possible, since narrow blocks are slow, and all of about the same width.
        widest = max(min(_width(), most // rows) // size, 1)
        at_once = -(-kept // -(-kept // widest))
    for i in range(outer):
        for first in range(i * kept, (i + 1) * kept, at_once):
            yield first, min(first + at_once, (i + 1) * kept)
