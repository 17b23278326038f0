"""A linear over bitmap codes: decode in float32, multiply in float32, round once."""

import torch
import torch.nn.functional as F

from .activations import quantize_activations
from .bitmap_dual_shift_dequantize import bitmap_dual_shift_dequantize


def bitmap_dual_shift_linear(
    x: torch.Tensor,
    bitmap: torch.Tensor,
    codes: torch.Tensor,
    panel_offsets: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    bias: torch.Tensor | None,
    n: int,
    bits: int,
    group_size: int,
    codebook: str,
    activation_bits: int | None,
) -> torch.Tensor:
    """x [m, k] -> [m, n] in x.dtype; at 8 activation bits of the quantized x * column_scale, scaled per token."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    inputs, token_scale = x.to(dtype), None
    if activation_bits is not None:
        quantized, token_scale = quantize_activations(x, column_scale)
        inputs, column_scale = quantized.to(dtype), torch.ones_like(column_scale)
    weight = bitmap_dual_shift_dequantize(
        bitmap, codes, panel_offsets, scale, zero, column_scale, n, bits, group_size, codebook, dtype
    )
    y = F.linear(inputs, weight) if token_scale is None else F.linear(inputs, weight) * token_scale.to(dtype)
    return (y if bias is None else y + bias.to(dtype)).to(x.dtype)
