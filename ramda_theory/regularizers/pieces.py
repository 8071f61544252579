"""What regularizers compute piece by piece: thresholds, signs, margins, and the checks of their arguments."""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np

from ramda_theory.arrays import Array, is_host, largest, to_float64


def same_shape(**arrays: Array) -> None:
    """Raise ValueError unless all named arrays have one shape."""
    shapes = {name: tuple(array.shape) for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError("shapes must agree, got " + ", ".join(f"{name} {shape}" for name, shape in shapes.items()))


def positive(xp: ModuleType, diag: Array) -> Array:
    """``diag`` in float64, refused where an entry is zero or negative; on a device, which must not wait, NaN there.

    A NaN passes, to stay visible in its piece.
    """
    diag = to_float64(xp, diag)
    if not is_host(diag):
        return xp.where(diag <= 0, xp.nan, diag)
    if math.prod(diag.shape) and not bool(xp.min(diag) > 0) and bool(xp.any(diag <= 0)):
        raise ValueError(f"diag must be positive everywhere, its smallest entry is {float(xp.min(diag)):g}")
    return diag


def soft_threshold(xp: ModuleType, z: Array, threshold: Array | float) -> Array:
    """sign(z) max(|z| - threshold, 0), with a NaN kept as NaN and no negative zero."""
    return xp.where(xp.abs(z) <= threshold, xp.zeros_like(z), xp.where(z > 0, z - threshold, z + threshold))


def signs(w: np.ndarray) -> np.ndarray:
    """Sign of every entry as int8; a NaN is no zero and counts as positive."""
    return np.where(np.isnan(w), 1, np.sign(w)).astype(np.int8)


def margin(xp: ModuleType, ratios: Array, inactive: Array) -> Array:
    """1 - max of the nonnegative ``ratios`` over the ``inactive`` pieces, 1 if there is none."""
    return 1.0 - largest(xp, xp.where(inactive, ratios, xp.zeros_like(ratios)))
