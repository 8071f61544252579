"""What the constructors of problems demand of their arguments."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from ramda_theory.arrays import real


def integer(name: str, value: Any, minimum: int, maximum: int | None = None, why: str = "") -> int:
    """``value`` as an int in [minimum, maximum]; ``why`` explains the upper bound in the error message."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(f"{name} must be an integer, got {value!r}") from error
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {number}")
    if maximum is not None and number > maximum:
        raise ValueError(f"{name} must be at most {maximum}{f' ({why})' if why else ''}, got {number}")
    return number


def fraction(name: str, value: Any) -> float:
    """``value`` as a float in [0, 1]."""
    number = real(name, value, minimum=0.0)
    if number > 1:
        raise ValueError(f"{name} must be in [0, 1], got {value!r}")
    return number


def matrix(name: str, value: Any) -> np.ndarray:
    """``value`` as a nonempty, C-contiguous float64 matrix of its own, finite also when squared and summed."""
    return _finite(name, value, 2)


def vector(name: str, value: Any, length: int, why: str) -> np.ndarray:
    """``value`` as a float64 vector of its own, finite as in `matrix`, with ``length`` entries, and ``why`` as many."""
    array = _finite(name, value, 1)
    if array.size != length:
        raise ValueError(f"{name} must have {length} entries ({why}), got {array.size}")
    return array


def _finite(name: str, value: Any, ndim: int) -> np.ndarray:
    kind = "matrix" if ndim == 2 else "vector"
    if np.iscomplexobj(value):
        raise TypeError(f"{name} must be a {kind} of real numbers, got complex ones")
    try:
        array = np.array(value, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a {kind} of real numbers, got {type(value).__name__}") from error
    if array.ndim != ndim or not array.size:
        raise ValueError(f"{name} must be a nonempty {kind}, got shape {array.shape}")
    check_size(name, array)
    return array


def check_size(name: str, array: np.ndarray) -> None:
    """Refuse NaN, Inf and numbers whose squares do not add up in float64."""
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name} must be finite, it holds NaN or Inf")
    with np.errstate(over="ignore"):
        if not np.isfinite(np.vdot(array, array)):
            largest = float(np.max(np.abs(array)))
            raise ValueError(f"{name} must be scaled down: its largest entry, {largest:g}, overflows when squared")
