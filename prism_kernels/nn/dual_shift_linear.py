"""`nn.Linear` over a column-scaled, group-quantized weight."""

from typing import ClassVar

import torch

from ..formats.dual_shift import DualShiftWeight
from ..ops.dual_shift_linear import run_dual_shift_linear
from ..reference.panels import PANEL_ROWS, num_panels
from ._base import PackedLinear


class DualShiftLinear(PackedLinear):
    """Drop-in linear over a `DualShiftWeight`: y = x @ weight^T + bias.

    Shapes: x [..., in_features], float32, float16 or bfloat16, to [..., out_features] in x.dtype; bias in x.dtype.
    activation_bits = 8 multiplies whole numbers (see `ops.dual_shift_linear`), for the uniform codebook only.

    Example:
        >>> packed = DualShiftLinear.from_linear(linear, bits=4, group_size=64)
        >>> y = packed(x)
    """

    FORMAT: ClassVar[type[DualShiftWeight]] = DualShiftWeight

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    column_scale: torch.Tensor
    bias: torch.nn.Parameter | None

    def __init__(
        self, weight: DualShiftWeight, bias: torch.Tensor | None = None, activation_bits: int | None = None
    ) -> None:
        super().__init__(weight, bias, activation_bits)
        self._grid = (weight.bits, weight.group_size, weight.codebook)

    def fused(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self._arguments()
        return run_dual_shift_linear(x, weight, bias, self.out_features, *self._grid, self._activation_bits)

    def decode(self, dtype: torch.dtype, begin: int = 0, end: int | None = None) -> torch.Tensor:
        end = self.out_features if end is None else end
        panels = slice(begin // PANEL_ROWS, num_panels(end))
        tensors = (self.codes[panels], self.scale[panels], self.zero[panels], self.column_scale)
        return torch.ops.prism.dual_shift_dequantize.default(*tensors, end - begin, *self._grid, dtype)
