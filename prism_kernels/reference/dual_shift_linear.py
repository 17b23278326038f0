"""A linear over a dual-shift weight: decode, then a dense product in fp32."""

import torch

from .dual_shift_dequantize import dual_shift_dequantize


def dual_shift_linear(
    x: torch.Tensor,
    codes: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    bias: torch.Tensor | None,
    bits: int,
    group_size: int,
    codebook: str,
) -> torch.Tensor:
    """x [m, k] and a weight [n, k] as in `dual_shift_dequantize` -> [m, n] in x.dtype, rounded once."""
    weight = dual_shift_dequantize(codes, scale, zero, column_scale, bits, group_size, codebook, torch.float32)
    y = x.float() @ weight.T
    return (y if bias is None else y + bias.float()).to(x.dtype)
