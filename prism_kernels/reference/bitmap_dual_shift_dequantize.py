"""Bitmap codes back to weights: survivors by their codes, 0 elsewhere."""

import torch

from .bitmap import first_bits, to_mask
from .codebooks import levels
from .unpack_codes import unpack_codes


def bitmap_dual_shift_dequantize(
    bitmap: torch.Tensor,
    codes: torch.Tensor,
    row_offsets: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    bits: int,
    group_size: int,
    codebook: str,
    dtype: torch.dtype,
) -> torch.Tensor:
    """-> [n, k] of dtype: (q - z) * s * c in fp32, or level[q] * s * c, rounded once. The bitmap alone says where each
    code stands; row_offsets follow from it."""
    k, num_groups = column_scale.shape[0], scale.shape[1]
    group = torch.arange(k, device=codes.device) // group_size
    mask = to_mask(bitmap, k)
    positions = first_bits(bitmap, bits)
    stream = ((codes.unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8, device=codes.device)) & 1).flatten()
    kept = sum(stream[positions + bit].int() << bit for bit in range(bits))
    steps = torch.zeros(mask.shape, device=codes.device)
    if codebook == "uniform":
        steps[mask] = (kept - unpack_codes(zero, bits, num_groups)[:, group][mask]).float()
    else:
        steps[mask] = levels(codebook, codes.device)[kept]
    return (steps * scale.float()[:, group] * column_scale.float()).to(dtype)
