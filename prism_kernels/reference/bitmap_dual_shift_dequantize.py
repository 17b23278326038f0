"""Bitmap codes back to weights: survivors by their codes, 0 elsewhere."""

import torch

from .bitmap import first_bits, unpack_bits
from .codebooks import levels
from .panels import from_quads, panels_to_rows, unpack_zero


def bitmap_dual_shift_dequantize(
    bitmap: torch.Tensor,
    codes: torch.Tensor,
    panel_offsets: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    n: int,
    bits: int,
    group_size: int,
    codebook: str,
    dtype: torch.dtype,
) -> torch.Tensor:
    """-> [n, k] of dtype: (q - z) * s * c, or level[q] * s * c, in at least fp32 and rounded once; 0 where pruned."""
    k, exact = column_scale.shape[0], torch.promote_types(dtype, torch.float32)
    group = torch.arange(k, device=codes.device) // group_size
    kept = unpack_bits(bitmap)
    stream = unpack_bits(codes[int(panel_offsets[0]) :])  # a range of panels shares the codes of all
    positions = first_bits(kept, bits)
    survivors = torch.zeros(kept.shape, dtype=torch.int32, device=codes.device)
    survivors[kept] = sum((stream[positions + bit].int() << bit for bit in range(bits)), start=survivors.new_zeros(()))
    steps = from_quads(survivors, n, k)
    if codebook == "uniform":
        steps = steps - unpack_zero(zero, n, bits)[:, group].int()
    else:
        steps = levels(codebook, codes.device)[steps]
    steps = torch.where(from_quads(kept, n, k), steps.to(exact), 0.0)
    return (steps * panels_to_rows(scale, n).to(exact)[:, group] * column_scale.to(exact)).to(dtype)
