"""A linear over 4-bit codes behind a 2:4 mask, in the order of sparse tensor cores."""

import torch
import torch.nn.functional as F

from .sparse24_dual_shift_dequantize import sparse24_steps


def sparse24_dual_shift_linear(
    x: torch.Tensor,
    codes: torch.Tensor,
    columns: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    bias: torch.Tensor | None,
    n: int,
    group_size: int,
) -> torch.Tensor:
    """x [m, k] -> [m, n] in x.dtype; x * column_scale is rounded to x.dtype, the sums are those of float32."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    weight = sparse24_steps(codes, columns, scale, zero, n, x.shape[-1], group_size).to(dtype)
    scaled = (x.to(dtype) * column_scale.to(dtype)).to(x.dtype).to(dtype)
    return F.linear(scaled, weight, None if bias is None else bias.to(dtype)).to(x.dtype)
