"""`nn.Linear` over a bitmap weight with dual-shift codes."""

import torch
import torch.nn.functional as F

from .. import dispatch, ops
from ..formats._base import PackedWeight
from ..formats.bitmap_dual_shift import BitmapDualShiftWeight
from ._bitmap import BitmapLinearBase


class BitmapDualShiftLinear(BitmapLinearBase):
    """A linear whose kept weights are codes behind a bitmap: pruned and quantized at once.

    Few tokens run the fused kernel; from a measured number on, the weight is decoded and the dense GEMM called.
    """

    FORMAT = BitmapDualShiftWeight
    _STREAM = "codes"

    bitmap: torch.Tensor
    codes: torch.Tensor
    row_offsets: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    column_scale: torch.Tensor

    def __init__(self, weight: PackedWeight, bias: torch.Tensor | None = None) -> None:
        super().__init__(weight, bias)
        self._grid = {key: self.config[key] for key in ("bits", "group_size", "codebook")}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., k] -> [..., n] in the dtype of x."""
        weight = (self.bitmap, self.codes, self.row_offsets, self.scale, self.zero, self.column_scale)
        if dispatch.prefers_dense("bitmap_dual_shift_linear", x):
            dense = ops.bitmap_dual_shift_dequantize(*weight, **self._grid, dtype=x.dtype)
            return F.linear(x, dense, self.bias)
        return ops.bitmap_dual_shift_linear(x, *weight, self.bias, **self._grid)
