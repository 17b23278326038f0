"""Decoding of a bitmap weight with dual-shift codes."""

import torch

from ..reference.bitmap_dual_shift_dequantize import bitmap_dual_shift_dequantize as reference
from ._bitmap import require_bitmap_dual_shift
from ._check import FLOAT_DTYPES, require
from ._define import define


def _fake(bitmap, codes, row_offsets, scale, zero, column_scale, bits, group_size, codebook, dtype):
    return scale.new_empty(bitmap.shape[0], column_scale.shape[0], dtype=dtype)


define(
    "bitmap_dual_shift_dequantize(Tensor bitmap, Tensor codes, Tensor row_offsets, Tensor scale, Tensor zero, "
    "Tensor column_scale, int bits, int group_size, str codebook, ScalarType dtype) -> Tensor",
    reference=reference,
    fake=_fake,
)


def bitmap_dual_shift_dequantize(
    bitmap: torch.Tensor,
    codes: torch.Tensor,
    row_offsets: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    *,
    bits: int,
    group_size: int,
    codebook: str = "uniform",
    dtype: torch.dtype,
) -> torch.Tensor:
    """Decodes to (code - zero) * scale * column_scale, or level[code] * scale * column_scale; pruned is exactly 0.

    Args:
        bitmap: uint8 [n, 8 * ceil(k / 64)].
        codes: packed uint8 [bytes], as from `bitmap_dual_shift_pack`.
        row_offsets: int32 [n + 1] in bytes, from `bitmap_dual_shift_pack` or `bitmap_row_offsets(bitmap, bits)`.
        scale: bfloat16 [n, G], G = ceil(k / group_size).
        zero: packed uint8 [n, ceil(G * bits / 8)]; [n, 0] for nf4 and nf3.
        column_scale: bfloat16 [k].
        bits: 2, 3, 4, 5, 6 or 8.
        group_size: columns per scale, at least 1.
        codebook: "uniform", "nf4" (4 bits) or "nf3" (3 bits).
        dtype: of the result; the products are formed in float32 and rounded once.

    Returns:
        [n, k] in `dtype`.
    """
    op = "bitmap_dual_shift_dequantize"
    require_bitmap_dual_shift(
        op, bitmap, codes, row_offsets, scale, zero, column_scale, bits=bits, group_size=group_size, codebook=codebook
    )
    require(dtype in FLOAT_DTYPES, op, "dtype", "be float32, float16 or bfloat16", dtype)
    tensors = (bitmap, codes, row_offsets, scale, zero, column_scale)
    return torch.ops.prism.bitmap_dual_shift_dequantize.default(
        *(t.contiguous() for t in tensors), bits, group_size, codebook, dtype
    )
