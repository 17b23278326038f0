"""`nn.Linear` over a bitmap weight."""

import torch
import torch.nn.functional as F

from .. import dispatch, ops
from ..formats.bitmap import BitmapWeight
from ._bitmap import BitmapLinearBase


class BitmapLinear(BitmapLinearBase):
    """A linear whose kept weights stand behind a bitmap, in their own dtype; lossless.

    Few tokens run the fused kernel; from a measured number on, the weight is decoded and the dense GEMM called.
    """

    FORMAT = BitmapWeight
    _STREAM = "values"

    bitmap: torch.Tensor
    values: torch.Tensor
    row_offsets: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., k] -> [..., n] in the dtype of x."""
        if dispatch.prefers_dense("bitmap_linear", x):
            weight = ops.bitmap_unpack(self.bitmap, self.values, self.row_offsets, self.in_features)
            return F.linear(x, weight.to(x.dtype), self.bias)
        return ops.bitmap_linear(x, self.bitmap, self.values, self.row_offsets, self.bias)
