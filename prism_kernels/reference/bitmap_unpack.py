"""Bitmap unpacking: the kept weights at their places, 0 elsewhere."""

import torch

from .bitmap import from_pairs, unpack_bits


def bitmap_unpack(
    bitmap: torch.Tensor, values: torch.Tensor, panel_offsets: torch.Tensor, n: int, k: int
) -> torch.Tensor:
    """-> [n, k] in the dtype of values. The bitmap alone says where the values go; panel_offsets follow from it."""
    kept = unpack_bits(bitmap)
    weight = values.new_zeros(kept.shape)
    # The values from the first panel's on: a range of panels shares the values of all.
    begin = int(panel_offsets[0])
    weight[kept] = values[begin : begin + int(kept.sum())]
    return from_pairs(weight, n, k)
