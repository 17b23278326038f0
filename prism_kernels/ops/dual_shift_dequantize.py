"""Decoding of a dual-shift weight."""

import torch

from ..reference.dual_shift_dequantize import dual_shift_dequantize as reference
from ._check import FLOAT_DTYPES, require
from ._define import define
from ._dual_shift import require_weight


def _fake(codes, scale, zero, column_scale, n, bits, group_size, codebook, dtype):
    return codes.new_empty(n, column_scale.shape[0], dtype=dtype)


define(
    "dual_shift_dequantize(Tensor codes, Tensor scale, Tensor zero, Tensor column_scale, int n, int bits,"
    " int group_size, str codebook, ScalarType dtype) -> Tensor",
    reference=reference,
    fake=_fake,
)


def dual_shift_dequantize(
    codes: torch.Tensor,
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
    """Decodes packed codes: (q - z) * s * c, or level[q] * s * c for "nf4" and "nf3".

    The product is taken in float32, where the uniform one is exact (8 + 8 + 8 significant bits), and rounded once.
    All tensors are stored in P = ceil(n / 16) panels of 16 rows; G = ceil(k / group_size).

    Args:
        codes: u8 [P, ceil(k / 32), bits, 64], from `dual_shift_pack`.
        scale: bfloat16 [P, G, 16], the rows of a panel side by side.
        zero: u8 [P, G, 8] up to 4 bits: byte i holds rows i (low half) and i + 8 (high half) of the panel; [P, G, 16]
            beyond 4 bits, a byte per row; [P, G, 0] for "nf4" and "nf3", which have none.
        column_scale: bfloat16 [k].
        n: rows of the weight.
        bits: 2, 3, 4, 5, 6 or 8; 4 for "nf4", 3 for "nf3".
        group_size: columns per group, >= 1.
        codebook: "uniform", "nf4" or "nf3".
        dtype: of the result, float32, float16 or bfloat16.

    Returns:
        [n, k] of dtype.
    """
    op = "dual_shift_dequantize"
    require_weight(op, codes, scale, zero, column_scale, n, bits, group_size, codebook)
    require(dtype in FLOAT_DTYPES, op, "dtype", "be float32, float16 or bfloat16", dtype)
    tensors = (codes.contiguous(), scale.contiguous(), zero.contiguous(), column_scale.contiguous())
    return torch.ops.prism.dual_shift_dequantize.default(*tensors, n, bits, group_size, codebook, dtype)
