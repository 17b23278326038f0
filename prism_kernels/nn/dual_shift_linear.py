"""`nn.Linear` over a column-scaled, group-quantized weight."""

from typing import Any, ClassVar

import torch
from torch.nn import functional as F

from .. import dispatch, ops
from ..formats.dual_shift import DualShiftWeight
from ._base import PackedLinear


class DualShiftLinear(PackedLinear):
    """Drop-in linear over a `DualShiftWeight`: y = x @ weight^T + bias.

    Few tokens run the fused op; from the measured crossover on, each call decodes the weight to x.dtype and runs the
    dense product.

    Shapes: x [..., in_features], float32, float16 or bfloat16, to [..., out_features] in x.dtype; bias in x.dtype.

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

    def __init__(self, weight: DualShiftWeight, bias: torch.Tensor | None = None) -> None:
        super().__init__(weight, bias)
        self._grid: dict[str, Any] = {k: self.config[k] for k in ("bits", "group_size", "codebook")}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        packed = (self.codes, self.scale, self.zero, self.column_scale)
        if dispatch.prefers_dense("dual_shift_linear", x):
            return F.linear(x, ops.dual_shift_dequantize(*packed, **self._grid, dtype=x.dtype), self.bias)
        return ops.dual_shift_linear(x, *packed, self.bias, **self._grid)
