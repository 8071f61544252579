"""The array libraries, dtypes and memory layouts that every test body runs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Backend:
    """One library and dtype: makes its arrays from float64 NumPy values and reads them back."""

    library: str
    dtype: str

    def __str__(self) -> str:
        return f"{self.library}-{self.dtype}"

    @property
    def eps(self) -> float:
        """Machine epsilon of the dtype."""
        return float(torch.finfo(getattr(torch, self.dtype)).eps)

    def array(self, values: Any, layout: str = "c") -> Any:
        """``values`` in this dtype, in the named memory layout (see `LAYOUTS`)."""
        values = np.asarray(values, dtype=np.float64)
        if self.library == "torch":
            tensor = torch.tensor(values, dtype=getattr(torch, self.dtype))
            return in_layout(tensor, layout, torch.empty, torch.permute)
        return in_layout(values.astype(self.dtype), layout, np.empty, np.transpose)

    def round(self, values: Any) -> np.ndarray:
        """``values`` rounded to this dtype, as float64."""
        return to_numpy(self.array(values))


def to_numpy(array: Any) -> np.ndarray:
    """The values of any backend's array as float64 NumPy values."""
    return array.detach().double().numpy() if isinstance(array, torch.Tensor) else np.asarray(array, dtype=np.float64)


LAYOUTS = ("c", "reversed", "rotated", "strided")
"""Row-major; axes in memory in reverse order; rotated by one; every other entry of a larger row-major array."""


def in_layout(array: Any, layout: str, empty: Any, permute: Any) -> Any:
    """A copy of ``array`` that lies in memory as ``layout`` says."""
    rank = array.ndim
    order = list(range(rank))
    shape = list(array.shape)
    if layout == "reversed":
        order = order[::-1]
    elif layout == "rotated":
        order = order[1:] + order[:1]
    elif layout == "strided":
        shape = [2 * n for n in shape]
    out = empty(tuple(shape[axis] for axis in order), dtype=array.dtype)
    out = permute(out, tuple(int(axis) for axis in np.argsort(order)))
    if layout == "strided":
        out = out[(..., *(slice(None, None, 2),) * rank)]
    out[...] = array
    return out


NUMPY64, NUMPY32 = Backend("numpy", "float64"), Backend("numpy", "float32")
TORCH64, TORCH32 = Backend("torch", "float64"), Backend("torch", "float32")
BACKENDS = (NUMPY64, TORCH64, NUMPY32, TORCH32)
DOUBLE = (NUMPY64, TORCH64)
HALF = (Backend("torch", "bfloat16"), Backend("torch", "float16"), Backend("numpy", "float16"))
