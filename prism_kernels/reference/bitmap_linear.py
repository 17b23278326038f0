"""A linear over a bitmap weight: unpack, multiply in float32, round once."""

import torch
import torch.nn.functional as F

from .bitmap_unpack import bitmap_unpack


def bitmap_linear(
    x: torch.Tensor,
    bitmap: torch.Tensor,
    values: torch.Tensor,
    panel_offsets: torch.Tensor,
    bias: torch.Tensor | None,
    n: int,
) -> torch.Tensor:
    """x [m, k] -> [m, n] in x.dtype."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    weight = bitmap_unpack(bitmap, values, panel_offsets, n, x.shape[-1]).to(dtype)
    return F.linear(x.to(dtype), weight, None if bias is None else bias.to(dtype)).to(x.dtype)
