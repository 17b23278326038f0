"""From a compressed weight to its storage format."""

from __future__ import annotations

import torch
from torch import Tensor

from prism_kernels import ops
from prism_kernels.formats import BitmapDualShiftWeight, BitmapWeight, DualShiftWeight, PackedWeight


def round_to_nearest(
    weight: Tensor, mask: Tensor | None, column_scale: Tensor, *, bits: int, group_size: int, codebook: str
) -> PackedWeight:
    """Rounds each weight to its grid: (q - z) * s * c with group scale s, zero code z and column scale c.

    Args:
        weight: float [n, k].
        mask: bool [n, k], True = kept; None = dense. Pruned weights have no part in any grid and decode to exactly 0.
        column_scale: bf16 [k].
        bits, group_size, codebook: as `prism_kernels.ops.dual_shift_quantize`.
    """
    grid = {"bits": bits, "group_size": group_size, "codebook": codebook}
    codes, scale, zero = ops.dual_shift_quantize(weight, column_scale, mask, **grid)  # type: ignore[arg-type]
    return pack_rounded(codes, mask, scale, zero, column_scale, **grid)  # type: ignore[arg-type]


def pack_rounded(
    codes: Tensor,
    mask: Tensor | None,
    scale: Tensor,
    zero: Tensor,
    column_scale: Tensor,
    *,
    bits: int,
    group_size: int,
    codebook: str = "uniform",
) -> PackedWeight:
    """Unpacked codes u8 [n, k], scale bf16 [n, G] and zero u8 [n, G] in `DualShiftWeight`, or with a mask in
    `BitmapDualShiftWeight`, which stores the codes of survivors only."""
    grid = {"bits": bits, "group_size": group_size, "codebook": codebook}
    if mask is None:
        return DualShiftWeight.from_codes(codes, scale, zero, column_scale, **grid)  # type: ignore[arg-type]
    return BitmapDualShiftWeight.from_codes(codes, mask, scale, zero, column_scale, **grid)  # type: ignore[arg-type]


def pack_pruned(weight: Tensor, mask: Tensor, dtype: torch.dtype) -> PackedWeight:
    """The kept weights in `dtype` behind a bitmap."""
    return BitmapWeight.pack(weight.to(dtype), mask)
