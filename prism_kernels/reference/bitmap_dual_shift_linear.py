"""A linear over bitmap codes: decode in float32, multiply in float32, round once."""

import torch
import torch.nn.functional as F

from .bitmap_dual_shift_dequantize import bitmap_dual_shift_dequantize


def bitmap_dual_shift_linear(
    x: torch.Tensor,
    bitmap: torch.Tensor,
    codes: torch.Tensor,
    row_offsets: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    bias: torch.Tensor | None,
    bits: int,
    group_size: int,
    codebook: str,
) -> torch.Tensor:
    """x [m, k] -> [m, n] in x.dtype."""
    weight = bitmap_dual_shift_dequantize(
        bitmap, codes, row_offsets, scale, zero, column_scale, bits, group_size, codebook, torch.float32
    )
    return F.linear(x.float(), weight, None if bias is None else bias.float()).to(x.dtype)
