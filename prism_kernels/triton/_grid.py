"""The uniform grid of a group (`reference/grid.py`), bit for bit: correctly rounded divisions, no contraction."""

import triton
import triton.language as tl

from ._activations import round_half_even


@triton.jit
def quotient(a, b):
    """a / b of float32 tiles of any shapes that broadcast, correctly rounded: `/` is not, on a GPU."""
    return tl.div_rn(a, tl.zeros_like(a) + b)


@triton.jit
def sound_scale(scale):
    """float32 -> the bfloat16 scale in float32: at most the largest bfloat16; 1 in place of 0 and of subnormals."""
    scale = tl.minimum(scale, 3.3895313892515355e38).to(tl.bfloat16).to(tl.float32)
    return tl.where(scale >= 1.1754943508222875e-38, scale, 1.0)


@triton.jit
def find_grid(low, high, BITS: tl.constexpr):
    """Smallest and largest kept value of each group, 0 among them -> (scale, zero), float32."""
    LARGEST: tl.constexpr = (1 << BITS) - 1
    scale = sound_scale(quotient(high - low, LARGEST * 1.0))
    zero = round_half_even(quotient(-low, scale))
    return scale, tl.minimum(tl.maximum(zero, 0.0), LARGEST * 1.0)


@triton.jit
def round_to_grid(value, scale, zero, BITS: tl.constexpr):
    """The code of each value, float32."""
    LARGEST: tl.constexpr = (1 << BITS) - 1
    return tl.minimum(tl.maximum(round_half_even(quotient(value, scale)) + zero, 0.0), LARGEST * 1.0)
