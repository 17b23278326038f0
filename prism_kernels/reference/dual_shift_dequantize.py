"""Packed codes back to weights."""

import torch

from .codebooks import levels
from .dual_shift_unpack import dual_shift_unpack
from .panels import panels_to_rows, unpack_zero


def dual_shift_dequantize(
    codes: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    n: int,
    bits: int,
    group_size: int,
    codebook: str,
    dtype: torch.dtype,
) -> torch.Tensor:
    """codes u8 [P, ceil(k / 32), bits, 64], scale bf16 [P, G, 16], zero u8 [P, G, 8] (16 beyond 4 bits), column_scale
    bf16 [k] -> [n, k] of dtype: (q - z) * s * c in fp32, or level[q] * s * c; rounded once."""
    k = column_scale.shape[0]
    group = torch.arange(k, device=codes.device) // group_size
    codes = dual_shift_unpack(codes, n, k, bits)
    if codebook == "uniform":
        steps = codes.float() - unpack_zero(zero, n, bits).float()[:, group]
    else:
        steps = levels(codebook, codes.device)[codes.int()]
    return (steps * panels_to_rows(scale, n).float()[:, group] * column_scale.float()).to(dtype)
