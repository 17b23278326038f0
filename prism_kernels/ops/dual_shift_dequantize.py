"""Decoding of a dual-shift weight."""

import torch

from ..reference.dual_shift_dequantize import dual_shift_dequantize as reference
from ._check import FLOAT_DTYPES, require, require_tensor
from ._define import define
from ._dual_shift import packed_bytes, require_grid, require_row_grid_tensors


def _fake(codes, scale, zero, column_scale, bits, group_size, codebook, dtype):
    return codes.new_empty(codes.shape[0], column_scale.shape[0], dtype=dtype)


define(
    "dual_shift_dequantize(Tensor codes, Tensor scale, Tensor zero, Tensor column_scale, int bits, int group_size,"
    " str codebook, ScalarType dtype) -> Tensor",
    reference=reference,
    fake=_fake,
)


def dual_shift_dequantize(
    codes: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    *,
    bits: int,
    group_size: int,
    codebook: str = "uniform",
    dtype: torch.dtype,
) -> torch.Tensor:
    """Decodes packed codes: (q - z) * s * c, or level[q] * s * c for "nf4" and "nf3".

    The product is taken in float32, where the uniform one is exact (8 + 8 + 8 significant bits), and rounded once.

    Args:
        codes: u8 [n, ceil(k * bits / 8)], rows as `pack_codes` makes them.
        scale: bfloat16 [n, G], G = ceil(k / group_size).
        zero: u8 [n, ceil(G * bits / 8)], packed as the codes; [n, 0] for "nf4" and "nf3".
        column_scale: bfloat16 [k].
        bits: 2, 3, 4, 5, 6 or 8; 4 for "nf4", 3 for "nf3".
        group_size: columns per group, >= 1.
        codebook: "uniform", "nf4" or "nf3".
        dtype: of the result, float32, float16 or bfloat16.

    Returns:
        [n, k] of dtype.
    """
    op = "dual_shift_dequantize"
    require_grid(op, bits, group_size, codebook)
    require(dtype in FLOAT_DTYPES, op, "dtype", "be float32, float16 or bfloat16", dtype)
    require_tensor(column_scale, op, "column_scale", shape=(None,), dtype=torch.bfloat16)
    k = column_scale.shape[0]
    require_tensor(codes, op, "codes", shape=(None, packed_bytes(k, bits)), dtype=torch.uint8)
    require_row_grid_tensors(
        op, codes.shape[0], k, codes.device, scale, zero, column_scale, bits, group_size, codebook
    )  # fmt: skip
    return torch.ops.prism.dual_shift_dequantize.default(
        codes.contiguous(),
        scale.contiguous(),
        zero.contiguous(),
        column_scale.contiguous(),
        bits,
        group_size,
        codebook,
        dtype,
    )
