"""Packing of the kept weights behind a bitmap."""

import torch

from ..reference.bitmap_pack import bitmap_pack as reference
from ._bitmap import bitmap_width, require_int32_offsets
from ._check import require_float, require_tensor
from ._define import define


def _fake(weight, mask):
    n, k = weight.shape
    kept = torch.library.get_ctx().new_dynamic_size()
    return (
        weight.new_empty(n, bitmap_width(k), dtype=torch.uint8),
        weight.new_empty(kept),
        weight.new_empty(n + 1, dtype=torch.int32),
    )


define("bitmap_pack(Tensor weight, Tensor? mask) -> (Tensor, Tensor, Tensor)", reference=reference, fake=_fake)


def bitmap_pack(
    weight: torch.Tensor, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stores one bit per weight and the kept weights.

    Args:
        weight: [n, k], float32, float16 or bfloat16.
        mask: bool [n, k], True = kept; None keeps what differs from 0.

    Returns:
        bitmap uint8 [n, 8 * ceil(k / 64)], bit j % 8 of byte j // 8 is column j, tail bits 0; values [kept] in the
        dtype of `weight`, row-major; row_offsets int32 [n + 1], where each row begins in `values`.

    Raises:
        ValueError: shapes that differ, or a weight of 2**31 or more elements.
    """
    require_float(weight, "bitmap_pack", "weight", shape=(None, None))
    if mask is not None:
        shape, device = tuple(weight.shape), weight.device
        require_tensor(mask, "bitmap_pack", "mask", shape=shape, dtype=torch.bool, device=device)
        mask = mask.contiguous()
    require_int32_offsets("bitmap_pack", weight.numel(), "elements of weight")
    return torch.ops.prism.bitmap_pack.default(weight.contiguous(), mask)
