"""From a compressed weight to its storage format."""

from __future__ import annotations

import torch
from torch import Tensor

from prism_kernels import ops
from prism_kernels.formats import (
    BitmapDualShiftWeight,
    BitmapWeight,
    DualShiftWeight,
    PackedWeight,
    Sparse24DualShiftWeight,
    Sparse24Weight,
)

#: The pattern that has storage formats of its own; all others are bitmaps.
_SPARSE24 = "2:4"


def round_to_nearest(
    weight: Tensor,
    mask: Tensor | None,
    column_scale: Tensor,
    *,
    bits: int,
    group_size: int,
    codebook: str,
    pattern: str = "unstructured",
) -> PackedWeight:
    """Rounds each weight to its grid: (q - z) * s * c with group scale s, zero code z and column scale c.

    Args:
        weight: float [n, k].
        mask: bool [n, k], True = kept; None = dense. Pruned weights have no part in any grid and decode to exactly 0.
        column_scale: bf16 [k].
        bits, group_size, codebook: as `prism_kernels.ops.dual_shift_quantize`.
        pattern: of the mask; "2:4" is stored as `Sparse24DualShiftWeight`.
    """
    grid = {"bits": bits, "group_size": group_size, "codebook": codebook}
    codes, scale, zero = ops.dual_shift_quantize(weight, column_scale, mask, **grid)  # type: ignore[arg-type]
    return pack_rounded(codes, mask, scale, zero, column_scale, pattern=pattern, **grid)  # type: ignore[arg-type]


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
    pattern: str = "unstructured",
) -> PackedWeight:
    """Unpacked codes u8 [n, k], scale bf16 [n, G] and zero u8 [n, G] in `DualShiftWeight`, or with a mask in
    `BitmapDualShiftWeight`, which stores the codes of survivors only (2:4: `Sparse24DualShiftWeight`)."""
    grid = {"bits": bits, "group_size": group_size, "codebook": codebook}
    if mask is None:
        return DualShiftWeight.from_codes(codes, scale, zero, column_scale, **grid)  # type: ignore[arg-type]
    sparse = Sparse24DualShiftWeight if pattern == _SPARSE24 else BitmapDualShiftWeight
    return sparse.from_codes(codes, mask, scale, zero, column_scale, **grid)  # type: ignore[arg-type]


def pack_pruned(weight: Tensor, mask: Tensor, dtype: torch.dtype, pattern: str = "unstructured") -> PackedWeight:
    """The kept weights in `dtype` behind a bitmap; a mask of the pattern 2:4 as `Sparse24Weight`."""
    sparse = Sparse24Weight if pattern == _SPARSE24 else BitmapWeight
    return sparse.pack(weight.to(dtype), mask)
