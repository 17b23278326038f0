"""Panel offsets of bitmap formats, derived from the bitmap. A plain function: the formats never store them."""

import torch

from ..reference.bitmap import panel_offsets
from ._check import require_tensor
from ._dual_shift import require_bits


def bitmap_panel_offsets(bitmap: torch.Tensor, bits: int | None = None) -> torch.Tensor:
    """Where each panel's survivors begin, and where the last panel ends.

    Args:
        bitmap: uint8 [P, ceil(k / 2), 4] of `bitmap_pack`, or [P, ceil(k / 4), 8] of `bitmap_dual_shift_pack`.
        bits: None for element offsets into the values of `bitmap_pack`; 2, 3, 4, 5, 6 or 8 for byte offsets into the
            codes of `bitmap_dual_shift_pack`, where each quad takes ceil(survivors * bits / 8) bytes.

    Returns:
        int64 [P + 1], rising from 0.
    """
    name = "bitmap_panel_offsets"
    if bits is not None:
        require_bits(name, bits)
    require_tensor(bitmap, name, "bitmap", shape=(None, None, 4 if bits is None else 8), dtype=torch.uint8)
    return panel_offsets(bitmap, bits)
