"""Numbers in Triton kernels: roots, powers, the average, half precision, memory by its address.

No literal here may be below 1.2e-38 or above 3.4e38: Triton would compute the whole expression in float64.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction


@triton.jit
def cube_root(x):
    """x^(1/3) for x >= 0 in float32, to 2e-7: from the logarithm, and a Newton step."""
    # A subnormal number has no logarithm on every device: the cube root of 2^24 x is 2^8 x^(1/3).
    tiny = x < 1e-30
    a = tl.where(tiny, x * 16777216.0, x)
    y = tl.exp2(tl.log2(tl.maximum(a, 1e-37)) * 0.3333333333333333)
    y -= (y - a / (y * y)) * 0.3333333333333333
    y = tl.where(tiny, y * 0.00390625, y)
    return tl.where(x > 0, y, x)  # 0, or NaN


@triton.jit
def square_root(x):
    """x^(1/2) in float32."""
    return tl.sqrt(x)


@triton.jit
def power(x, exponent):
    """x^exponent of numbers >= 0 in float64."""
    return tl.exp(tl.log(x) * exponent)


@triton.jit
def mix(w, x, c):
    """(1 - c) w + c x as in `torch.lerp`: exactly w where x = w, exactly x where c = 1."""
    return tl.where(c < 0.5, w + c * (x - w), x - (x - w) * (1.0 - c))


INTERPRETED = tl.constexpr(isinstance(mix, InterpretedFunction))
"""Whether kernels are interpreted on the CPU, as ``TRITON_INTERPRET=1`` asks for before the first of them is loaded."""


@triton.jit
def narrow(x, DTYPE: tl.constexpr):
    """A float32 as the nearest number of ``DTYPE``, ties to even."""
    if INTERPRETED and DTYPE == tl.bfloat16:  # the interpreter cuts bits off
        bits = x.to(tl.uint32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        found = tl.where(x == x, bits, 0x7FC0).to(tl.uint16).to(DTYPE, bitcast=True)
    else:
        found = x.to(DTYPE)
    return found


@triton.jit
def floats(address, ALIGNED: tl.constexpr):
    """A pointer to float32 at an address that lies in memory."""
    return pointer(address, tl.float32, ALIGNED)


@triton.jit
def pointer(address, dtype: tl.constexpr, ALIGNED: tl.constexpr):
    """A pointer to ``dtype`` at an address that lies in memory; ``ALIGNED``: to 16 bytes."""
    found = tl.load(address).to(tl.pointer_type(dtype))
    if ALIGNED:
        found = tl.multiple_of(found, 16)
    return found
