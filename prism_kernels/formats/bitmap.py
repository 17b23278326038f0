"""Bitmap: one bit per weight and the kept weights in their own dtype; 9 bits per weight at 50 % and 16-bit values."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from .. import ops
from ..ops._check import FLOAT_DTYPES
from ..reference.bitmap import PAIR_COLUMNS, to_pairs, unit_sizes
from ._base import PackedWeight
from ._bitmap import require_bitmap, shape_of, take
from ._grid import require, require_layout


@dataclass(frozen=True, eq=False)
class BitmapWeight(PackedWeight):
    """The kept weights of [n, k] behind a bitmap; lossless.

    Attributes:
        bitmap: u8 [P, ceil(k / 2), 4], P = ceil(n / 16): a little-endian mask per pair of columns of a panel of 16
            rows, bit 2 * row + c is column 2 * pair + c; bits past n and k are 0.
        values: [kept], float32, float16 or bfloat16, ordered by panel, pair and bit.
        dense_shape: (n, k).

    Bytes: P * ceil(k / 2) * 4 + kept * element size.
    """

    NAME: ClassVar[str] = "bitmap"

    bitmap: torch.Tensor
    values: torch.Tensor
    dense_shape: tuple[int, int]

    @classmethod
    def pack(cls, weight: torch.Tensor, mask: torch.Tensor | None = None) -> "BitmapWeight":
        """Packs weight [n, k]; `mask` bool [n, k] (True = kept), None keeps what differs from 0."""
        bitmap, values, _ = ops.bitmap_pack(weight, mask)
        return cls(bitmap, values, (weight.shape[0], weight.shape[1]))

    @property
    def shape(self) -> tuple[int, int]:
        return self.dense_shape

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"bitmap": self.bitmap, "values": self.values}

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.dense_shape)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> "BitmapWeight":
        bitmap, values = take(cls, tensors, ("bitmap", "values"))
        weight = cls(bitmap, values, shape_of(cls.NAME, config, ("shape",)))
        weight.validate()
        return weight

    def validate(self) -> None:
        name, values = self.NAME, self.values
        require_bitmap(name, self.bitmap, self.dense_shape, PAIR_COLUMNS, to_pairs)
        require(isinstance(values, torch.Tensor), name, "values", "be a tensor", type(values).__name__)
        floats = "have dtype float32, float16 or bfloat16"
        require(values.dtype in FLOAT_DTYPES, name, "values", floats, values.dtype)
        kept = int(unit_sizes(self.bitmap).sum())
        require_layout(name, "values", values, (kept,), values.dtype, self.bitmap.device)

    def panel_offsets(self) -> torch.Tensor:
        """Where each panel begins in `values`: int64 [P + 1], derived."""
        return ops.bitmap_panel_offsets(self.bitmap)

    def to_dense(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """[n, k] of dtype, by default that of `values`; a pruned weight is exactly 0."""
        dense = ops.bitmap_unpack(self.bitmap, self.values, self.panel_offsets(), *self.dense_shape)
        return dense if dtype is None else dense.to(dtype)
