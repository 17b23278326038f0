"""Decoding of a bitmap weight with dual-shift codes."""

import torch

from ..reference.bitmap_dual_shift_dequantize import bitmap_dual_shift_dequantize as reference
from ._bitmap import require_bitmap_dual_shift
from ._check import FLOAT_DTYPES, require
from ._define import define


def _fake(bitmap, codes, panel_offsets, scale, zero, column_scale, n, bits, group_size, codebook, dtype):
    return scale.new_empty(n, column_scale.shape[0], dtype=dtype)


define(
    "bitmap_dual_shift_dequantize(Tensor bitmap, Tensor codes, Tensor panel_offsets, Tensor scale, Tensor zero, "
    "Tensor column_scale, int n, int bits, int group_size, str codebook, ScalarType dtype) -> Tensor",
    reference=reference,
    fake=_fake,
)


def bitmap_dual_shift_dequantize(
    bitmap: torch.Tensor,
    codes: torch.Tensor,
    panel_offsets: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    *,
    n: int,
    bits: int,
    group_size: int,
    codebook: str = "uniform",
    dtype: torch.dtype,
) -> torch.Tensor:
    """Decodes to (code - zero) * scale * column_scale, or level[code] * scale * column_scale; pruned is exactly 0.

    Args:
        bitmap: uint8 [P, ceil(k / 4), 8], P = ceil(n / 16), as from `bitmap_dual_shift_pack`.
        codes: packed uint8 [bytes], likewise.
        panel_offsets: int64 [P + 1] in bytes, from `bitmap_dual_shift_pack` or `bitmap_panel_offsets(bitmap, bits)`.
            A range of panels is decoded by slicing every tensor with P panels, beside all of `codes`.
        scale: bfloat16 [P, G, 16], G = ceil(k / group_size); lane i of panel p is row 16 * p + i.
        zero: uint8 [P, G, 8] up to 4 bits (byte i holds rows i and, high nibble, i + 8), [P, G, 16] beyond; [P, G, 0]
            for nf4 and nf3.
        column_scale: bfloat16 [k].
        n: rows of the weight.
        bits: 2, 3, 4, 5, 6 or 8.
        group_size: columns per scale, at least 1.
        codebook: "uniform", "nf4" (4 bits) or "nf3" (3 bits).
        dtype: of the result; the products are formed in float32 and rounded once.

    Returns:
        [n, k] in `dtype`.
    """
    op = "bitmap_dual_shift_dequantize"
    tensors = (bitmap, codes, panel_offsets, scale, zero, column_scale)
    require_bitmap_dual_shift(op, *tensors, n=n, bits=bits, group_size=group_size, codebook=codebook)
    require(dtype in FLOAT_DTYPES, op, "dtype", "be float32, float16 or bfloat16", dtype)
    return torch.ops.prism.bitmap_dual_shift_dequantize.default(
        *(t.contiguous() for t in tensors), n, bits, group_size, codebook, dtype
    )
