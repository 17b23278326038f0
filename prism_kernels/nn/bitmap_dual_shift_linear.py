"""`nn.Linear` over a bitmap weight with dual-shift codes."""

from typing import ClassVar

import torch

from ..formats._base import PackedWeight
from ..formats.bitmap_dual_shift import BitmapDualShiftWeight
from ..ops.bitmap_dual_shift_linear import run_bitmap_dual_shift_linear
from ..reference.panels import PANEL_ROWS, num_panels
from ._bitmap import BitmapLinearBase


class BitmapDualShiftLinear(BitmapLinearBase):
    """A linear whose kept weights are codes behind a bitmap: pruned and quantized at once.

    activation_bits = 8 multiplies whole numbers (see `ops.bitmap_dual_shift_linear`), for the uniform codebook only.
    """

    FORMAT: ClassVar[type[BitmapDualShiftWeight]] = BitmapDualShiftWeight
    _STREAM = "codes"
    _KERNEL_TENSORS = ("bitmap", "codes", "panel_offsets", "scale", "zero", "column_scale")

    bitmap: torch.Tensor
    codes: torch.Tensor
    panel_offsets: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    column_scale: torch.Tensor

    def __init__(
        self, weight: PackedWeight, bias: torch.Tensor | None = None, activation_bits: int | None = None
    ) -> None:
        super().__init__(weight, bias, activation_bits)
        self._grid: tuple[int, int, str] = (self.config["bits"], self.config["group_size"], self.config["codebook"])

    @classmethod
    def _op(cls) -> str:
        return "bitmap_dual_shift_linear"

    def fused(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self._arguments()
        return run_bitmap_dual_shift_linear(x, weight, bias, self.out_features, *self._grid, self._activation_bits)

    def decode(self, dtype: torch.dtype, begin: int = 0, end: int | None = None) -> torch.Tensor:
        end = self.out_features if end is None else end
        first, last = begin // PANEL_ROWS, num_panels(end)
        sparse = (self.bitmap[first:last], self.codes, self.panel_offsets[first : last + 1])  # offsets into all codes
        grid = (self.scale[first:last], self.zero[first:last], self.column_scale)
        return torch.ops.prism.bitmap_dual_shift_dequantize.default(*sparse, *grid, end - begin, *self._grid, dtype)
