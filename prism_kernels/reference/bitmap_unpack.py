"""Bitmap unpacking: the kept weights at their columns, 0 elsewhere."""

import torch

from .bitmap import to_mask


def bitmap_unpack(bitmap: torch.Tensor, values: torch.Tensor, row_offsets: torch.Tensor, k: int) -> torch.Tensor:
    """-> [n, k] in the dtype of values. The bitmap alone says where the values go; row_offsets follow from it."""
    weight = values.new_zeros(bitmap.shape[0], k)
    weight[to_mask(bitmap, k)] = values
    return weight
