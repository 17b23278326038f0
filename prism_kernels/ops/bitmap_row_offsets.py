"""Row offsets of bitmap formats, derived from the bitmap. A plain function: the formats never store them."""

import torch
import torch.nn.functional as F

from ..reference.bitmap import block_counts
from ._bitmap import require_int32_offsets
from ._check import require, require_tensor
from ._dual_shift import require_bits


def bitmap_row_offsets(bitmap: torch.Tensor, bits: int | None = None) -> torch.Tensor:
    """Where each row's survivors begin, and where the last row ends.

    Args:
        bitmap: uint8 [n, 8 * ceil(k / 64)].
        bits: None for element offsets into the values of `bitmap_pack`; 2, 3, 4, 5, 6 or 8 for byte offsets into the
            codes of `bitmap_dual_shift_pack`, where each 64-column block takes ceil(survivors * bits / 8) bytes.

    Returns:
        int32 [n + 1], rising from 0.

    Raises:
        ValueError: 2**31 or more survivors or bytes. Reads one number back from the device.
    """
    name = "bitmap_row_offsets"
    require_tensor(bitmap, name, "bitmap", shape=(None, None), dtype=torch.uint8)
    require(bitmap.shape[1] % 8 == 0, name, "bitmap", "have whole 8-byte blocks", list(bitmap.shape))
    counts = block_counts(bitmap)
    if bits is not None:
        require_bits(name, bits)
        counts = (counts * bits + 7) // 8
    offsets = F.pad(counts.sum(dim=1).cumsum(0), (1, 0))
    require_int32_offsets(name, int(offsets[-1]), "survivors" if bits is None else "bytes of codes")
    return offsets.int()
