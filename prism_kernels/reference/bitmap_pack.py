"""Bitmap packing: a mask per pair of columns of a panel, and the kept weights in the order of its bits."""

import torch

from .bitmap import pack_bits, panel_offsets, to_pairs


def bitmap_pack(
    weight: torch.Tensor, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """weight [n, k], bool mask [n, k] (None: weight != 0) -> bitmap u8 [P, ceil(k / 2), 4], values [kept],
    panel_offsets int64 [P + 1]."""
    kept = to_pairs(weight != 0 if mask is None else mask)
    bitmap = pack_bits(kept)
    return bitmap, to_pairs(weight)[kept], panel_offsets(bitmap)
