"""Bitmap packing: a bit per column and the kept weights, row-major."""

import torch
import torch.nn.functional as F

from .bitmap import from_mask


def bitmap_pack(
    weight: torch.Tensor, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """weight [n, k], bool mask [n, k] (None: weight != 0) -> bitmap, values [kept], row_offsets int32 [n + 1]."""
    mask = weight != 0 if mask is None else mask
    row_offsets = F.pad(mask.sum(dim=1).cumsum(0), (1, 0))
    return from_mask(mask), weight[mask], row_offsets.int()
