"""Numbers in compiled loops: roots, the average, half precision as bits, memory by its address."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

f32, index = np.float32, np.uint64

fast: dict[str, Any] = {"fastmath": {"contract"}, "error_model": "numpy", "nogil": True}
"""Options of loops that compute entry by entry: a multiplication and an addition may round once."""
sums: dict[str, Any] = {**fast, "fastmath": {"contract", "reassoc"}}
"""Options of loops that add up: terms may be added in another order."""

inlined: dict[str, Any] = {**fast, "forceinline": True}
"""Options of loops that are given functions: a call with one left in it could not be kept on disk."""

SMALLEST = f32(2.0**-126)
"""The smallest normal number."""
SEED, THIRD = f32(0x54A1F000), f32(1 / 3)


def _vectorized(typingctx: Any) -> Any:
    """Tell the compiler that the arrays given to the calling function are apart, and to use the widest vectors."""

    def codegen(context, builder, signature, args):
        function = builder.function
        set.add(function.attributes, '"prefer-vector-width"="512"')  # llvmlite's own `add` knows no such name
        for argument in function.args[2:]:  # after the places of the result and of an error
            if isinstance(argument.type, ir.PointerType):
                argument.add_attribute("noalias")
        return context.get_dummy_value()

    return types.void(), codegen


vectorized: Any = intrinsic(_vectorized)


@nb.njit(**fast)
def cube_root(a):
    """a^(1/3) for a >= 0 in float32, to 1e-7: a guess from the exponent, and a polynomial."""
    tiny = a < f32(1e-30)
    a = a * f32(2.0**24) if tiny else a
    # The bits of a float are a logarithm of it: a constant minus a third of them are the bits of a^(-1/3), to 3.5%.
    r = np.int32(SEED - f32(np.float32(a).view(np.int32)) * THIRD).view(np.float32)
    # With y = a r^2 and h = 1 - y r: a^(1/3) = y (1 - h)^(-2/3), here by the best polynomial of sixth degree for
    # |h| < 0.103, in three pieces that do not wait for each other.
    y = r * r * a
    h = f32(1) - y * r
    square = h * h
    first = f32(0.66666669) + f32(0.55555564) * h
    second = f32(0.49379089) + f32(0.45262152) * h
    third = f32(0.42947927) + f32(0.40711175) * h
    y = y + y * h * (first + square * (second + square * third))
    return y * f32(2.0**-8) if tiny else y


@nb.njit(**fast)
def square_root(a):
    """a^(1/2) in float32."""
    return np.sqrt(a)


@nb.njit(**fast)
def mix(w, x, c):
    """(1 - c) w + c x as in `torch.lerp`: exactly w where x = w, exactly x where c = 1; 0 instead of denormals.

    A weight that shrinks geometrically would end in them, and arithmetic with them takes a hundred times as long.
    """
    mixed = w + c * (x - w) if c < f32(0.5) else x - (x - w) * (f32(1) - c)
    return f32(0) if abs(mixed) < SMALLEST else mixed


# -- float32 and the bits of half precision ---------------------------------------------------------------------------


@nb.njit(**fast)
def as_it_is(x):
    """A float32."""
    return x


@nb.njit(**fast)
def from_bfloat16(bits):
    """The float32 whose upper half is ``bits``."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@nb.njit(**fast)
def to_bfloat16(x):
    """The bits of the nearest bfloat16, ties to even."""
    bits = np.float32(x).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    return np.uint16(rounded) if x == x else np.uint16(0x7FC0)


def _from_float16(typingctx: Any, bits: Any) -> Any:
    def codegen(context, builder, signature, args):
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), codegen


def _to_float16(typingctx: Any, x: Any) -> Any:
    def codegen(context, builder, signature, args):
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), codegen


_widened: Any = intrinsic(_from_float16)
_rounded: Any = intrinsic(_to_float16)


@nb.njit(**fast)
def from_float16(bits):
    """The float32 with the value of the float16 whose bits these are."""
    return _widened(bits)


@nb.njit(**fast)
def to_float16(x):
    """The bits of the nearest float16, ties to even."""
    return _rounded(x)


# -- memory -----------------------------------------------------------------------------------------------------------


def _pointer_to(kind: Any) -> Any:
    """A function that takes an address for a pointer to ``kind``."""

    def pointer(typingctx: Any, address: Any) -> Any:
        def codegen(context, builder, signature, args):
            return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), codegen

    return intrinsic(pointer)


_float32_at, _float64_at = _pointer_to(types.float32), _pointer_to(types.float64)
_uint16_at, _int64_at = _pointer_to(types.uint16), _pointer_to(types.int64)


@nb.njit(**fast)
def floats(address, size):
    """``size`` float32 in memory."""
    return carray(_float32_at(address), size)


@nb.njit(**fast)
def halves(address, size):
    """The bits of ``size`` half-precision numbers in memory."""
    return carray(_uint16_at(address), size)


@nb.njit(**fast)
def counter(address):
    """One int64 in memory."""
    return carray(_int64_at(address), 1)


@nb.njit(**fast)
def total(address):
    """One float64 in memory."""
    return carray(_float64_at(address), 1)
