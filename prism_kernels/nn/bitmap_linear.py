"""`nn.Linear` over a bitmap weight."""

from typing import ClassVar

import torch

from ..formats.bitmap import BitmapWeight
from ..ops.bitmap_linear import run_bitmap_linear
from ..reference.panels import PANEL_ROWS, num_panels
from ._bitmap import BitmapLinearBase


class BitmapLinear(BitmapLinearBase):
    """A linear whose kept weights stand behind a bitmap, in their own dtype; lossless."""

    FORMAT: ClassVar[type[BitmapWeight]] = BitmapWeight
    _STREAM = "values"
    _KERNEL_TENSORS = ("bitmap", "values", "panel_offsets")

    bitmap: torch.Tensor
    values: torch.Tensor
    panel_offsets: torch.Tensor

    @classmethod
    def _op(cls) -> str:
        return "bitmap_linear"

    def fused(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self._arguments()
        return run_bitmap_linear(x, weight, bias, self.out_features, self.in_features)

    def decode(self, dtype: torch.dtype, begin: int = 0, end: int | None = None) -> torch.Tensor:
        end = self.out_features if end is None else end
        first, last = begin // PANEL_ROWS, num_panels(end)
        weight = (self.bitmap[first:last], self.values, self.panel_offsets[first : last + 1])  # offsets into all values
        return torch.ops.prism.bitmap_unpack.default(*weight, end - begin, self.in_features).to(dtype)
