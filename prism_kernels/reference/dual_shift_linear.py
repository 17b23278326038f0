"""A linear over a dual-shift weight: decode, then a dense product in fp32."""

import torch

from .activations import quantize_activations
from .dual_shift_dequantize import dual_shift_dequantize


def dual_shift_linear(
    x: torch.Tensor,
    codes: torch.Tensor,
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
    """x [m, k] and a weight [n, k] as in `dual_shift_dequantize` -> [m, n] in x.dtype, rounded once; with
    activation_bits = 8 the product of what `quantize_activations` makes of x * column_scale. float64 x is summed in
    float64."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    grid = (n, bits, group_size, codebook, dtype)
    if activation_bits is None:
        y = x.to(dtype) @ dual_shift_dequantize(codes, scale, zero, column_scale, *grid).T
    else:
        whole, token_scale = quantize_activations(x, column_scale)
        weight = dual_shift_dequantize(codes, scale, zero, torch.ones_like(column_scale), *grid)
        y = token_scale.to(dtype) * (whole.to(dtype) @ weight.T)
    return (y if bias is None else y + bias.to(dtype)).to(x.dtype)
