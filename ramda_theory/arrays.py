"""What the mathematics needs to know about its arrays: one namespace, float64 totals, sums over labelled groups.

Everything above this module is written over the Python array API and runs on NumPy arrays and torch tensors alike.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import array_namespace, is_numpy_namespace, is_torch_array

Array: TypeAlias = Any
"""A NumPy array or a torch tensor (any array-API array works where no labels are involved)."""


def namespace(**arrays: Array) -> ModuleType:
    """Return the array namespace of the named arguments, refusing what the mathematics does not cover.

    Raises
    ------
    TypeError
        If an argument is not an array, is sparse, complex or not floating point, or if NumPy and torch are mixed.
    """
    if all(type(array) is np.ndarray and array.dtype.kind == "f" for array in arrays.values()):
        return np
    for name, array in arrays.items():
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError(f"{name} must be a plain array, got a masked one")
        if type(array).__module__.startswith("scipy.sparse") or getattr(array, "is_sparse", False):
            raise TypeError(f"{name} must be dense, got a sparse {type(array).__name__}")
        if is_torch_array(array) and str(array.layout) != "torch.strided":
            raise TypeError(f"{name} must be dense, got layout {array.layout}")
    try:
        xp = array_namespace(*arrays.values())
        if any(isinstance(array, (int, float)) and not hasattr(array, "dtype") for array in arrays.values()):
            raise TypeError("numbers are not arrays")
    except TypeError as error:
        kinds = ", ".join(f"{name}: {type(array).__name__}" for name, array in arrays.items())
        raise TypeError(f"expected NumPy arrays or torch tensors, all of one library, got {kinds}") from error
    for name, array in arrays.items():
        if not xp.isdtype(array.dtype, "real floating"):
            raise TypeError(f"{name} must have a real floating dtype, got {array.dtype}")
    return np if is_numpy_namespace(xp) else xp


def real(name: str, value: Any, *, minimum: float = -np.inf, strict: bool = False) -> float:
    """Return ``value`` as a float after checking that it is a finite real number above ``minimum``.

    Raises
    ------
    TypeError
        If ``value`` is not a real number (an array of one entry counts as one).
    ValueError
        If it is not finite, below ``minimum``, or equal to it when ``strict``.
    """
    if isinstance(value, (bool, str, complex)):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a real number, got {value!r}") from error
    if not np.isfinite(number) or number < minimum or (strict and number == minimum):
        bound = "" if minimum == -np.inf else f" {'>' if strict else '>='} {minimum:g}"
        raise ValueError(f"{name} must be finite{' and' + bound if bound else ''}, got {value!r}")
    return number


def integers(name: str, values: Sequence[int] | int) -> tuple[int, ...]:
    """``values`` as a tuple of ints; anything that is not an integer or a sequence of them is a TypeError."""
    try:
        return tuple(operator.index(value) for value in (values if isinstance(values, Iterable) else (values,)))
    except TypeError as error:
        raise TypeError(f"{name} must be an integer or a sequence of integers, got {values!r}") from error


def sum_of_roots(count: int) -> float:
    """sqrt(1) + ... + sqrt(count), to the last digits; beyond a thousand terms by the Euler-Maclaurin formula."""
    if count <= 1000:
        return math.fsum(math.sqrt(k) for k in range(1, count + 1))
    zeta = -0.207886224977354566  # of -1/2
    root = math.sqrt(count)
    return math.fsum([root * count * (2 / 3), root / 2, zeta, 1 / (24 * root), -1 / (1920 * root**5)])


def to_float64(xp: ModuleType, array: Array) -> Array:
    """``array`` in float64 (itself if it already is), where products and totals neither overflow nor cancel early."""
    return array if array.dtype == xp.float64 else xp.astype(array, xp.float64)


def total(xp: ModuleType, array: Array, axis: tuple[int, ...] | None = None) -> Array:
    """Sum in float64 whatever the dtype of ``array``; ``axis`` is kept with length one, ``None`` sums everything."""
    reduce = np.add.reduce if xp is np else xp.sum  # np.sum costs twice as much on small arrays
    if axis is None:
        return zero_dimensional(xp, reduce(array, axis=None, dtype=xp.float64))
    # An empty axis tuple reduces nothing in NumPy and everything in torch.
    return reduce(array, axis=axis, keepdims=True, dtype=xp.float64) if axis else to_float64(xp, array)


def largest(xp: ModuleType, array: Array) -> Array:
    """Largest entry of a nonnegative array, 0 if it is empty; a 0-d array."""
    return zero_dimensional(xp, xp.max(array) if math.prod(array.shape) else xp.sum(array))


def zero_dimensional(xp: ModuleType, number: Array) -> Array:
    """A 0-d array where NumPy's reductions give a scalar."""
    return np.asarray(number) if xp is np else number


def norm(xp: ModuleType, array: Array) -> Array:
    """Euclidean norm of all entries, a 0-d float64 array, computed without overflow or underflow."""
    array = to_float64(xp, array)
    scale = largest(xp, xp.abs(array))
    scale = xp.where((scale > 0) & xp.isfinite(scale), scale, xp.ones_like(scale))
    return scale * xp.sqrt(total(xp, (array / scale) ** 2))


def inner(xp: ModuleType, x: Array, y: Array) -> Array:
    """Inner product <x, y> of all entries, a 0-d float64 array."""
    return total(xp, to_float64(xp, x) * to_float64(xp, y))


def segment_sum(xp: ModuleType, array: Array, labels: Array, groups: int) -> Array:
    """Float64 totals of a vector over the groups named by ``labels`` in 0 .. groups - 1."""
    if xp is np:
        return np.bincount(labels, weights=array, minlength=groups)
    return to_float64(xp, array).new_zeros(groups).index_add(0, labels, to_float64(xp, array))


def segment_max(xp: ModuleType, array: Array, labels: Array, groups: int) -> Array:
    """Largest entry of each labelled group of a nonnegative vector (0 for an empty group)."""
    if xp is np:
        out = np.zeros(groups, dtype=array.dtype)
        np.maximum.at(out, labels, array)
        return out
    return array.new_zeros(groups).scatter_reduce(0, labels, array, "amax")


def is_host(array: Array) -> bool:
    """Whether looking at the array's values is free: no device to wait for, no compiled graph to break."""
    if not is_torch_array(array):
        return True
    import torch

    return array.device.type == "cpu" and not torch.compiler.is_compiling()


def to_host(array: Array) -> np.ndarray:
    """A NumPy view or copy of ``array`` (waits for a device)."""
    if type(array) is np.ndarray:
        return array
    if is_torch_array(array):
        array = array.detach()
        full = getattr(array, "full_tensor", None)  # a DTensor gathers its shards
        array = (full() if full is not None else array).cpu()
        array = (array.float() if str(array.dtype) == "torch.bfloat16" else array).numpy()
    return np.asarray(array)


def cbrt(xp: ModuleType, array: Array) -> Array:
    """Cube root of a nonnegative array."""
    if xp is np:
        return np.cbrt(array)
    root = array ** (1.0 / 3.0)
    # 1/3 is not a float: one Newton step takes the root to rounding level.
    safe = xp.where(root > 0, root, xp.ones_like(root))
    return xp.where(root > 0, root - (root - array / (safe * safe)) / 3.0, root)
