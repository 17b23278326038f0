"""A linear over a bitmap weight: unpack, multiply in float32, round once."""

import torch
import torch.nn.functional as F

from .bitmap_unpack import bitmap_unpack


def bitmap_linear(
    x: torch.Tensor,
    bitmap: torch.Tensor,
    values: torch.Tensor,
    row_offsets: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """x [m, k] -> [m, n] in x.dtype."""
    weight = bitmap_unpack(bitmap, values, row_offsets, x.shape[-1])
    return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)
