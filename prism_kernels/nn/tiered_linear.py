"""`nn.Linear` over a weight in tiles of three tiers."""

from typing import Any

import torch

from ..formats._base import PackedWeight
from ..formats.tiered import TieredWeight
from ..ops.tiered_linear import run_tiered_linear
from ..reference.panels import PANEL_ROWS, num_panels
from ._derived import DerivedLinear


class TieredLinear(DerivedLinear):
    """A linear whose weight is cut into 16x16 tiles, each dense, 2:4, top-k or empty; lossless.

    Shapes: x [..., in_features], float32, float16 or bfloat16, to [..., out_features] in x.dtype; bias in x.dtype.

    Example:
        >>> packed = TieredLinear.from_linear(linear, tiers=tiers, top_k=10)
        >>> y = packed(x)
    """

    FORMAT = TieredWeight
    _STREAMS = ("masks", "values")
    _KERNEL_TENSORS = ("tiers", "masks", "values", "panel_offsets")

    tiers: torch.Tensor
    masks: torch.Tensor
    values: torch.Tensor
    panel_offsets: torch.Tensor

    def _derived(self, weight: PackedWeight) -> dict[str, Any]:
        return {"panel_offsets": weight.panel_offsets()}  # type: ignore[attr-defined]

    def fused(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self._arguments()
        return run_tiered_linear(x, weight, bias, self.out_features, self.in_features)

    def decode(self, dtype: torch.dtype, begin: int = 0, end: int | None = None) -> torch.Tensor:
        end = self.out_features if end is None else end
        first, last = begin // PANEL_ROWS, num_panels(end)
        weight = (self.tiers[first:last], self.masks, self.values, self.panel_offsets[first : last + 1])
        return torch.ops.prism.tiered_unpack.default(*weight, end - begin, self.in_features).to(dtype)
