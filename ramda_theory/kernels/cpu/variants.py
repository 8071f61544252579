"""One compiled function per method, solve and dtype, made when it is first needed and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

import numba as nb
import numpy as np

from ramda_theory.kernels import recurrences
from ramda_theory.kernels.cpu import loops, solves
from ramda_theory.kernels.cpu.arithmetic import (
    SMALLEST,
    as_it_is,
    counter,
    f32,
    fast,
    floats,
    from_bfloat16,
    from_float16,
    halves,
    index,
    inlined,
    sums,
    to_bfloat16,
    to_float16,
    total,
)
from ramda_theory.kernels.cpu.loops import Arrays, Solve
from ramda_theory.kernels.rules import ADJACENT, COLUMNS, L1, MCP, MCP_ADJACENT, MCP_COLUMNS, NO_PSI

METHODS = (
    recurrences.RAMDA,
    recurrences.RMDA,
    recurrences.PROX_SGD,
    recurrences.PROX_ADAMW,
    recurrences.NORMAL_MAP,
)
_RAMDA, _RMDA, _PROX_SGD, _PROX_ADAMW, _NORMAL_MAP = range(5)

FLOAT32, BFLOAT16, FLOAT16 = range(3)
"""Dtype of a parameter and its gradient."""

W, P, G, X, Y, Z, NORMS, STEP, WEIGHT_SUM = range(9)
"""Columns of the table of addresses; 0 where a tensor has none."""
SIGN, C, ENTRY_WEIGHT, ENTRY_NUMBER, GROUP_WEIGHT = range(5)
"""Columns of the table of settings, before the options of the method."""
OPTIONS = 5
SCALE, LAM, GROWTH, PROLOGUE = range(4)
"""Columns of the table of numbers, before those of the prologue."""

ramda_numbers, ramda = nb.njit(**fast)(recurrences.ramda_numbers), nb.njit(**inlined)(recurrences.ramda)
rmda_numbers, rmda = nb.njit(**fast)(recurrences.rmda_numbers), nb.njit(**inlined)(recurrences.rmda)
prox_sgd_numbers, prox_sgd = nb.njit(**fast)(recurrences.prox_sgd_numbers), nb.njit(**inlined)(recurrences.prox_sgd)
prox_adamw_numbers = nb.njit(**fast)(recurrences.prox_adamw_numbers)
prox_adamw = nb.njit(**inlined)(recurrences.prox_adamw)
normal_map_numbers = nb.njit(**fast)(recurrences.normal_map_numbers)
normal_map = nb.njit(**inlined)(recurrences.normal_map)


SOURCE_FILES = ("arithmetic", "sizes", "loops", "solves", "group_mcp")


def _fingerprint() -> int:
    """A number that changes with the sources: Numba's cache watches the file of the function it keeps, no other."""
    texts = [files("ramda_theory.kernels") / "recurrences.py"]
    texts += [files("ramda_theory.kernels.cpu") / f"{name}.py" for name in SOURCE_FILES]
    return int(hashlib.sha256(b"".join(text.read_bytes() for text in texts)).hexdigest()[:15], 16)


SOURCES = _fingerprint()


@cache
def advance(method: int) -> Callable[..., Any]:
    """The function that counts a step of every tensor and works out its numbers.

    It takes ``addresses``, ``settings`` and ``numbers``, arrays with a row per tensor; it fills the last.
    """
    sources = SOURCES

    @nb.njit("void(int64[:, ::1], float64[:, ::1], float64[:, ::1])", **fast, cache=True)
    def advance(addresses, settings, numbers):
        if sources == 0:
            return
        for i in range(len(addresses)):
            step = counter(addresses[i, STEP])
            step[0] += 1
            t = float(step[0])
            before = 0.0
            if addresses[i, WEIGHT_SUM] != 0:
                before = total(addresses[i, WEIGHT_SUM])[0]
            o = settings[i, OPTIONS:]
            if method == _RAMDA:
                after, scale, found = ramda_numbers(t, before, o)
            elif method == _RMDA:
                after, scale, found = rmda_numbers(t, before, o)
            elif method == _PROX_SGD:
                after, scale, found = prox_sgd_numbers(t, before, o)
            elif method == _PROX_ADAMW:
                after, scale, found = prox_adamw_numbers(t, before, o)
            else:
                after, scale, found = normal_map_numbers(t, before, o)
            if addresses[i, WEIGHT_SUM] != 0:
                total(addresses[i, WEIGHT_SUM])[0] = after
            numbers[i, SCALE] = scale
            # Groups have a threshold, however small it is.
            numbers[i, LAM] = max(scale * settings[i, GROUP_WEIGHT], np.float64(SMALLEST))
            # While V / alpha and U / alpha stay, d grows as alpha^(1/3), b and lam as alpha, and norms as
            # alpha^(2/3): where the last norms times that are close, one pass suffices.
            numbers[i, GROWTH] = (after / before) ** (2 / 3) if before > 0.1 * after else 1.0
            for j in range(len(found)):
                numbers[i, PROLOGUE + j] = found[j]

    return advance


@cache
def step(method: int, rule: int, dtype: int) -> Callable[..., Any]:
    """The function that steps tensors, or parts of them.

    It takes

    units : int64 array, (units, 3)
        Tensor, first group, last group + 1 (entries, where there are no groups); all of one i of ``sizes``.
    addresses : int64 array, (tensors, 9)
    sizes : int64 array, (tensors, 4)
        Lengths of the axes (kept, reduced, kept, reduced) that a tensor has here: group (i, k) is [i, :, k, :].
    settings, numbers : float64 arrays with a row per tensor
    scratch : float32 array
        Room for b and d of a block, and for the norms of its columns.
    room : int
        That for b, and that for d.
    """
    sources, half, both = SOURCES, dtype != FLOAT32, METHODS[method].changing == 2
    with_mcp, adjacent = rule in (MCP_COLUMNS, MCP_ADJACENT), rule in (ADJACENT, MCP_ADJACENT)
    metric, diag_at = METHODS[method].metric, {_RMDA: 1, _PROX_SGD: 3, _NORMAL_MAP: 2}.get(method, 0)

    @nb.njit(
        "void(int64[:, ::1], int64[:, ::1], int64[:, ::1], float64[:, ::1], float64[:, ::1], float32[::1], int64)",
        **fast,
        cache=True,
    )
    def step(units, addresses, sizes, settings, numbers, scratch, room):
        if sources == 0:
            return
        if method == _RAMDA:
            prologue = ramda
        elif method == _RMDA:
            prologue = rmda
        elif method == _PROX_SGD:
            prologue = prox_sgd
        elif method == _PROX_ADAMW:
            prologue = prox_adamw
        else:
            prologue = normal_map
        if dtype == FLOAT32:
            widen = as_it_is
            narrow = as_it_is
        elif dtype == BFLOAT16:
            widen = from_bfloat16
            narrow = to_bfloat16
        else:
            widen = from_float16
            narrow = to_float16
        b, d, rho = scratch[:room], scratch[room : 2 * room], scratch[2 * room :]
        for i in range(len(units)):
            tensor, first, last = units[i, 0], index(units[i, 1]), index(units[i, 2])
            outer, reduced, middle, inner = sizes[tensor]
            count = outer * reduced * middle * inner
            at, n, own = addresses[tensor], numbers[tensor], settings[tensor]
            w = floats(at[W], count)
            x, y, z = w, w, w
            if at[X] != 0:
                x = floats(at[X], count)
            if at[Y] != 0:
                y = floats(at[Y], count)
            if at[Z] != 0:
                z = floats(at[Z], count)
            if dtype == FLOAT32:
                a = Arrays(w, w, floats(at[G], count), x, y, z)
            else:
                a = Arrays(w, halves(at[P], count), halves(at[G], count), x, y, z)
            scale, own_weight, own_number = n[SCALE], own[ENTRY_WEIGHT], own[ENTRY_NUMBER]
            of_prologue = (
                f32(n[PROLOGUE]), f32(n[PROLOGUE + 1]), f32(n[PROLOGUE + 2]), f32(n[PROLOGUE + 3]),
                f32(n[PROLOGUE + 4]), f32(n[PROLOGUE + 5]), f32(n[PROLOGUE + 6]), f32(n[PROLOGUE + 7]),
            )  # fmt: skip
            second = scale * own_number if rule == L1 else own_weight
            entry = (f32(scale * own_weight), f32(second), f32(own_number), f32(scale), of_prologue[diag_at])
            mcp = (scale / own_number, own_number * own[GROUP_WEIGHT]) if with_mcp else (0.0, 0.0)
            k = Solve(f32(own[SIGN]), of_prologue, entry, f32(n[LAM]), n[LAM], f32(own[C]), f32(n[GROWTH]), mcp)
            if rule >= COLUMNS:
                if metric:
                    norms = floats(at[NORMS], outer * middle)[first:last]
                else:
                    norms = np.zeros(last - first, np.float32)
                rows, kept, size = index(reduced), index(middle), index(inner)
                if adjacent:
                    loops.adjacent(
                        prologue, widen, narrow, half, both, metric, with_mcp, a, k, norms, first * size, size, b, d
                    )  # fmt: skip
                else:
                    before = first // kept  # the groups of one outermost index come together
                    start = before * rows * kept * size + (first - before * kept) * size
                    loops.columns(
                        prologue, widen, narrow, half, both, metric, with_mcp, a, k, norms, start, rows, kept * size,
                        size, b, d, rho,
                    )  # fmt: skip
            else:
                if rule == NO_PSI:
                    solve = solves.no_psi
                elif rule == L1:
                    solve = solves.l1
                elif rule == MCP:
                    solve = solves.mcp
                else:
                    solve = solves.scad
                loops.entries(
                    prologue, solve, widen, narrow, half, both, a.w, a.p, a.g, a.x, a.y, a.z, first, last, k.sign, k.n,
                    k.entry, k.c,
                )  # fmt: skip

    return step


@cache
def squares(dtype: int) -> Callable[..., Any]:
    """The function that adds up the squares of tensors in float32: not finite where an entry or its square is not.

    It takes ``units`` (tensor, first entry, last entry + 1) and the ``addresses`` of the tensors.
    """
    sources = SOURCES

    @nb.njit("float64[::1](int64[:, ::1], int64[:])", **fast, cache=True)
    def squares(units, addresses):
        totals = np.zeros(addresses.size)
        if sources == 0:
            return totals
        for i in range(len(units)):
            tensor, first, last = units[i, 0], index(units[i, 1]), index(units[i, 2])
            if dtype == FLOAT32:
                totals[tensor] += sum_of_squares(floats(addresses[tensor], last), first, last, as_it_is)
            elif dtype == BFLOAT16:
                totals[tensor] += sum_of_squares(halves(addresses[tensor], last), first, last, from_bfloat16)
            else:
                totals[tensor] += sum_of_squares(halves(addresses[tensor], last), first, last, from_float16)
        return totals

    return squares


@nb.njit(**sums, forceinline=True)
def sum_of_squares(x, first, last, widen):
    """||x||^2 of the entries first .. last - 1 in float32."""
    added = f32(0)
    for j in range(first, last):
        each = widen(x[j])
        added += each * each
    return added
