"""`nn.Linear` over a bitmap weight."""

import torch

from .. import ops
from ..formats.bitmap import BitmapWeight
from ._bitmap import BitmapLinearBase


class BitmapLinear(BitmapLinearBase):
    """A linear whose kept weights stand behind a bitmap, in their own dtype; lossless."""

    FORMAT = BitmapWeight
    _STREAM = "values"

    bitmap: torch.Tensor
    values: torch.Tensor
    row_offsets: torch.Tensor

    def fused(self, x: torch.Tensor) -> torch.Tensor:
        return ops.bitmap_linear(x, self.bitmap, self.values, self.row_offsets, self.bias)

    def decode(self, dtype: torch.dtype, begin: int = 0, end: int | None = None) -> torch.Tensor:
        end = self.out_features if end is None else end
        offsets = self.row_offsets[begin : end + 1]  # into all values
        return ops.bitmap_unpack(self.bitmap[begin:end], self.values, offsets, self.in_features).to(dtype)
