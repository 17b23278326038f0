"""`nn.Linear` over a bitmap weight with dual-shift codes."""

import torch
from torch import Tensor

from .. import ops
from ..formats._base import PackedWeight
from ..formats.bitmap_dual_shift import BitmapDualShiftWeight
from ._bitmap import BitmapLinearBase


class BitmapDualShiftLinear(BitmapLinearBase):
    """A linear whose kept weights are codes behind a bitmap: pruned and quantized at once."""

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

    def fused(self, x: torch.Tensor) -> torch.Tensor:
        return ops.bitmap_dual_shift_linear(x, *self._packed(), self.bias, **self._grid)

    def decode(self, dtype: torch.dtype, begin: int = 0, end: int | None = None) -> torch.Tensor:
        end = self.out_features if end is None else end
        sparse = (self.bitmap[begin:end], self.codes, self.row_offsets[begin : end + 1])  # offsets are into all codes
        grid = (self.scale[begin:end], self.zero[begin:end], self.column_scale)
        return ops.bitmap_dual_shift_dequantize(*sparse, *grid, **self._grid, dtype=dtype)

    def _packed(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        return self.bitmap, self.codes, self.row_offsets, self.scale, self.zero, self.column_scale
