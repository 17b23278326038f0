"""A linear over 4-bit codes behind a 2:4 mask, in the order of sparse tensor cores."""

import torch
import torch.nn.functional as F

from .panels import panels_to_rows, unpack_zero
from .sparse24_unpack import sparse24_stored, sparse24_unpack


def decode_codes(
    codes: torch.Tensor, stored: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, group_size: int
) -> torch.Tensor:
    """codes u8 and stored bool [n, k] -> (q - z) * s of what is stored, 0 elsewhere: float32 [n, k], exact."""
    n, k = codes.shape
    group = torch.arange(k, device=codes.device) // group_size
    steps = codes.float() - unpack_zero(zero, n, 4)[:, group].float()
    return torch.where(stored, steps * panels_to_rows(scale, n).float()[:, group], 0.0)


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
    shape = (n, x.shape[-1])
    steps, stored = sparse24_unpack(codes, columns, *shape), sparse24_stored(columns, *shape)
    weight = decode_codes(steps, stored, scale, zero, group_size).to(dtype)
    scaled = (x.to(dtype) * column_scale.to(dtype)).to(x.dtype).to(dtype)
    return F.linear(scaled, weight, None if bias is None else bias.to(dtype)).to(x.dtype)
