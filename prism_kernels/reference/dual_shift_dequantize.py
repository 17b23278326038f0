"""Packed codes back to weights."""

import torch

from .codebooks import levels
from .unpack_codes import unpack_codes


def dual_shift_dequantize(
    codes: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    bits: int,
    group_size: int,
    codebook: str,
    dtype: torch.dtype,
) -> torch.Tensor:
    """codes u8 [n, ceil(k * bits / 8)], scale bf16 [n, G], zero u8 [n, ceil(G * bits / 8)], column_scale bf16 [k] ->
    [n, k] of dtype: (q - z) * s * c in fp32, or level[q] * s * c; rounded once."""
    k, num_groups = column_scale.shape[0], scale.shape[1]
    group = torch.arange(k, device=codes.device) // group_size
    codes = unpack_codes(codes, bits, k)
    if codebook == "uniform":
        steps = codes.float() - unpack_codes(zero, bits, num_groups).float()[:, group]
    else:
        steps = levels(codebook, codes.device)[codes.int()]
    return (steps * scale.float()[:, group] * column_scale.float()).to(dtype)
