"""Decoding of a bitmap weight."""

import torch

from ..reference.bitmap_unpack import bitmap_unpack as reference
from ._bitmap import require_bitmap
from ._check import require, require_float
from ._define import define

define(
    "bitmap_unpack(Tensor bitmap, Tensor values, Tensor row_offsets, int k) -> Tensor",
    reference=reference,
    fake=lambda bitmap, values, row_offsets, k: values.new_empty(bitmap.shape[0], k),
)


def bitmap_unpack(bitmap: torch.Tensor, values: torch.Tensor, row_offsets: torch.Tensor, k: int) -> torch.Tensor:
    """The dense weight of `bitmap_pack`'s tensors; a pruned weight is exactly 0.

    Args:
        bitmap: uint8 [n, 8 * ceil(k / 64)].
        values: [kept], float32, float16 or bfloat16.
        row_offsets: int32 [n + 1], from `bitmap_pack` or `bitmap_row_offsets`.
        k: columns.

    Returns:
        [n, k] in the dtype of `values`.
    """
    require(k >= 0, "bitmap_unpack", "k", "be at least 0", k)
    require_float(values, "bitmap_unpack", "values", shape=(None,))
    require_bitmap("bitmap_unpack", bitmap, row_offsets, k, values.device)
    return torch.ops.prism.bitmap_unpack.default(bitmap.contiguous(), values.contiguous(), row_offsets.contiguous(), k)
