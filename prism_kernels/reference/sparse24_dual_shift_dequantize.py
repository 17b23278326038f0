"""4-bit codes in the order of sparse tensor cores back to weights: what is stored by its code, 0 elsewhere."""

import torch

from .panels import panels_to_rows, unpack_zero
from .sparse24_unpack import sparse24_stored, sparse24_unpack


def sparse24_steps(
    codes: torch.Tensor, columns: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, n: int, k: int, group_size: int
) -> torch.Tensor:
    """-> (q - z) * s of what is stored, 0 elsewhere: float32 [n, k], exact."""
    group = torch.arange(k, device=codes.device) // group_size
    steps = sparse24_unpack(codes, columns, n, k).float() - unpack_zero(zero, n, 4)[:, group].float()
    return torch.where(sparse24_stored(columns, n, k), steps * panels_to_rows(scale, n).float()[:, group], 0.0)


def sparse24_dual_shift_dequantize(
    codes: torch.Tensor,
    columns: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    n: int,
    group_size: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """-> [n, k] of dtype: (q - z) * s * c in at least float32, rounded once."""
    exact = torch.promote_types(dtype, torch.float32)
    steps = sparse24_steps(codes, columns, scale, zero, n, column_scale.shape[0], group_size)
    return (steps.to(exact) * column_scale.to(exact)).to(dtype)
