"""`nn.Linear` over a column-scaled, group-quantized weight."""

from typing import Any, ClassVar

import torch

from .. import ops
from ..formats.dual_shift import DualShiftWeight
from ._base import PackedLinear


class DualShiftLinear(PackedLinear):
    """Drop-in linear over a `DualShiftWeight`: y = x @ weight^T + bias.

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

    def fused(self, x: torch.Tensor) -> torch.Tensor:
        return ops.dual_shift_linear(x, *self._packed(), self.bias, **self._grid)

    def decode(self, dtype: torch.dtype, begin: int = 0, end: int | None = None) -> torch.Tensor:
        rows = (self.codes[begin:end], self.scale[begin:end], self.zero[begin:end])
        return ops.dual_shift_dequantize(*rows, self.column_scale, **self._grid, dtype=dtype)

    def _packed(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.codes, self.scale, self.zero, self.column_scale
