"""Decoding of a bitmap weight."""

import torch

from ..reference.bitmap_unpack import bitmap_unpack as reference
from ._bitmap import require_bitmap
from ._check import require, require_float
from ._define import define

define(
    "bitmap_unpack(Tensor bitmap, Tensor values, Tensor panel_offsets, int n, int k) -> Tensor",
    reference=reference,
    fake=lambda bitmap, values, panel_offsets, n, k: values.new_empty(n, k),
)


def bitmap_unpack(
    bitmap: torch.Tensor, values: torch.Tensor, panel_offsets: torch.Tensor, n: int, k: int
) -> torch.Tensor:
    """The dense weight of `bitmap_pack`'s tensors; a pruned weight is exactly 0.

    Args:
        bitmap: uint8 [P, ceil(k / 2), 4], P = ceil(n / 16).
        values: [kept], float32, float16 or bfloat16.
        panel_offsets: int64 [P + 1], from `bitmap_pack` or `bitmap_panel_offsets`. A range of panels is decoded by
            slicing `bitmap` and `panel_offsets`, beside all of `values`.
        n, k: rows and columns.

    Returns:
        [n, k] in the dtype of `values`.
    """
    require(k >= 0, "bitmap_unpack", "k", "be at least 0", k)
    require_float(values, "bitmap_unpack", "values", shape=(None,))
    require_bitmap("bitmap_unpack", bitmap, panel_offsets, n, k, 2, values.device)
    tensors = (bitmap.contiguous(), values.contiguous(), panel_offsets.contiguous())
    return torch.ops.prism.bitmap_unpack.default(*tensors, n, k)
