"""CSR: each kept weight with its column; 32 bits per kept weight of 16. For interchange and high sparsity."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from .. import ops
from ..ops._check import FLOAT_DTYPES
from ..reference import csr as layout
from ._base import PackedWeight
from ._bitmap import shape_of, take
from ._grid import require, require_layout


@dataclass(frozen=True, eq=False)
class CsrWeight(PackedWeight):
    """The kept weights of [n, k] row by row; lossless.

    Attributes:
        values: [kept], float32, float16 or bfloat16; may hold zeros that a mask kept.
        columns: [kept], rising in each row; int16 with the bits of an unsigned number up to k = 65536, else int32.
        row_offsets: [n + 1], where each row begins; int32 below 2**31 kept weights, int64 beyond.
        dense_shape: (n, k).

    Bytes: kept * (element size + 2 or 4) + (n + 1) * 4 or 8.
    """

    NAME: ClassVar[str] = "csr"

    values: torch.Tensor
    columns: torch.Tensor
    row_offsets: torch.Tensor
    dense_shape: tuple[int, int]

    @classmethod
    def pack(cls, weight: torch.Tensor, mask: torch.Tensor | None = None) -> "CsrWeight":
        """Packs weight [n, k]; `mask` bool [n, k] (True = kept), None keeps what differs from 0."""
        if weight.dim() != 2 or weight.dtype not in FLOAT_DTYPES:
            got = f"{weight.dtype} {list(weight.shape)}"
            raise ValueError(f"CsrWeight.pack: weight must be [n, k] of float32, float16 or bfloat16, got {got}")
        kept = weight != 0 if mask is None else mask
        if kept.dtype != torch.bool or kept.shape != weight.shape:
            got = f"{kept.dtype} {list(kept.shape)}"
            raise ValueError(f"CsrWeight.pack: mask must be bool {list(weight.shape)}, got {got}")
        counts = torch.nn.functional.pad(kept.sum(1).cumsum(0), (1, 0))
        offsets = counts.to(torch.int32) if int(counts[-1]) < 2**31 else counts
        columns = layout.narrow(kept.nonzero()[:, 1], weight.shape[1])
        return cls(weight[kept], columns, offsets, (weight.shape[0], weight.shape[1]))

    @property
    def shape(self) -> tuple[int, int]:
        return self.dense_shape

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"values": self.values, "columns": self.columns, "row_offsets": self.row_offsets}

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.dense_shape)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> "CsrWeight":
        values, columns, row_offsets = take(cls, tensors, ("values", "columns", "row_offsets"))
        weight = cls(values, columns, row_offsets, shape_of(cls.NAME, config, ("shape",)))
        weight.validate()
        return weight

    def validate(self) -> None:
        name, (n, k) = self.NAME, self.dense_shape
        for what, tensor in self.tensors().items():
            require(isinstance(tensor, torch.Tensor), name, what, "be a tensor", type(tensor).__name__)
        values, offsets, device = self.values, self.row_offsets, self.values.device
        floats = "have dtype float32, float16 or bfloat16"
        require(values.dtype in FLOAT_DTYPES, name, "values", floats, values.dtype)
        kept = values.numel()
        require_layout(name, "values", values, (kept,), values.dtype, device)
        narrow = torch.int16 if k <= layout.MAX_NARROW else torch.int32
        require_layout(name, "columns", self.columns, (kept,), narrow, device)
        require_layout(name, "row_offsets", offsets, (n + 1,), torch.int32 if kept < 2**31 else torch.int64, device)
        ends = [int(offsets[0]), int(offsets[-1])]
        require(ends == [0, kept], name, "row_offsets", f"begin at 0 and end at {kept}", ends)
        steps = offsets.diff()
        lowest = int(steps.min()) if n else 0
        require(lowest >= 0, name, "row_offsets", "rise", f"steps down to {lowest}")
        columns = layout.widen(self.columns)
        largest = int(columns.max()) if kept else -1
        smallest = int(columns.min()) if kept else 0
        require(smallest >= 0 and largest < k, name, "columns", f"be between 0 and {k - 1}", [smallest, largest])
        rises = columns.diff() > 0
        begins = offsets[1:-1].long()
        rises[begins[(begins > 0) & (begins < kept)] - 1] = True  # a new row may begin anywhere
        falling = int((~rises).sum())
        require(falling == 0, name, "columns", "rise within each row", f"{falling} that do not")

    def kept(self) -> torch.Tensor:
        """Which weights are stored: bool [n, k]."""
        return ops.csr_unpack(torch.ones_like(self.values), self.columns, self.row_offsets, self.shape[1]) != 0

    def to_dense(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """[n, k] of dtype, by default that of `values`; a pruned weight is exactly 0."""
        dense = ops.csr_unpack(self.values, self.columns, self.row_offsets, self.dense_shape[1])
        return dense if dtype is None else dense.to(dtype)
