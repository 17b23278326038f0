"""Packing of the kept weights behind a bitmap."""

import torch

from ..reference.bitmap_pack import bitmap_pack as reference
from ._bitmap import bitmap_shape
from ._check import require_float, require_tensor
from ._define import define


def _fake(weight, mask):
    n, k = weight.shape
    shape = bitmap_shape(n, k, 2)
    kept = torch.library.get_ctx().new_dynamic_size()
    return (
        weight.new_empty(shape, dtype=torch.uint8),
        weight.new_empty(kept),
        weight.new_empty(shape[0] + 1, dtype=torch.int64),
    )


define("bitmap_pack(Tensor weight, Tensor? mask) -> (Tensor, Tensor, Tensor)", reference=reference, fake=_fake)


def bitmap_pack(
    weight: torch.Tensor, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stores one bit per weight and the kept weights, in panels of 16 rows; P = ceil(n / 16).

    Args:
        weight: [n, k], float32, float16 or bfloat16.
        mask: bool [n, k], True = kept; None keeps what differs from 0.

    Returns:
        bitmap uint8 [P, ceil(k / 2), 4], a little-endian mask per pair of columns: bit 2 * row + c is column 2 * pair
        + c, rows past n and columns past k are 0; values [kept] in the dtype of `weight`, ordered by panel, pair and
        bit; panel_offsets int64 [P + 1], where each panel begins in `values`.

    Raises:
        ValueError: shapes that differ.
    """
    require_float(weight, "bitmap_pack", "weight", shape=(None, None))
    if mask is not None:
        shape, device = tuple(weight.shape), weight.device
        require_tensor(mask, "bitmap_pack", "mask", shape=shape, dtype=torch.bool, device=device)
        mask = mask.contiguous()
    return torch.ops.prism.bitmap_pack.default(weight.contiguous(), mask)
