"""Column-scaled, group-quantized weights: every weight has a code, a pruned one the code of 0."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from .. import ops
from ..reference.panels import BLOCK_COLUMNS, PANEL_ROWS, QUAD_COLUMNS, num_panels
from ._base import PackedWeight
from ._grid import (
    pack_grid,
    require,
    require_grid,
    require_layout,
    require_names,
    require_numbers,
    require_shape,
    resolve_column_scale,
)


@dataclass(frozen=True, eq=False)
class DualShiftWeight(PackedWeight):
    """(q - z) * s * c: code q per weight, zero point z and scale s per (row, group), scale c per column.

    Attributes:
        codes: u8 [P, ceil(k / 32), bits, 64], P = ceil(n / 16) panels of 16 rows, from `ops.dual_shift_pack`.
        scale: bfloat16 [P, G, 16], G = ceil(k / group_size); finite, > 0 (>= 0 for "nf4" and "nf3").
        zero: u8 [P, G, 8] up to 4 bits: byte i holds rows i (low half) and i + 8 (high half) of the panel; [P, G, 16]
            beyond, a byte per row; [P, G, 0] for "nf4" and "nf3", which have none. Below 2**bits.
        column_scale: bfloat16 [k]; finite, > 0.
        bits: 2, 3, 4, 5, 6 or 8.
        group_size: columns per group; the last group of a row may be shorter.
        codebook: "uniform", "nf4" (bits = 4) or "nf3" (bits = 3).
        dense_shape: (n, k).

    What lies past n and k is 0. Bytes: P * (64 * bits * ceil(k / 32) + G * (32 + zero)) + 2 * k, zero being the last
    size of `zero`.
    """

    NAME: ClassVar[str] = "dual_shift"

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    column_scale: torch.Tensor
    bits: int
    group_size: int
    codebook: str
    dense_shape: tuple[int, int]

    @classmethod
    def pack(
        cls,
        weight: torch.Tensor,
        mask: torch.Tensor | None = None,
        *,
        bits: int = 4,
        group_size: int = 64,
        codebook: str = "uniform",
        column_scale: torch.Tensor | str = "rms",
    ) -> "DualShiftWeight":
        """Quantizes a weight.

        Args:
            weight: [n, k], float32, float16 or bfloat16.
            mask: bool [n, k], True = kept, None keeps all; a pruned weight decodes to exactly 0.
            bits, group_size, codebook: see the class.
            column_scale: bfloat16 [k], or a method of `ops.column_scale`.

        Raises:
            ValueError: weight holds NaN or infinity where it is kept, or an argument breaks its rule.
        """
        if not bool((weight if mask is None else torch.where(mask, weight, 0)).isfinite().all()):
            raise ValueError("DualShiftWeight.pack: weight must be finite where it is kept, got NaN or infinity")
        factors = resolve_column_scale(weight, mask, column_scale, group_size)
        grid: dict[str, Any] = {"bits": bits, "group_size": group_size, "codebook": codebook}
        codes, scale, zero = ops.dual_shift_quantize(weight, factors, mask, **grid)
        return cls.from_codes(codes, scale, zero, factors, **grid)

    @classmethod
    def from_codes(
        cls,
        codes: torch.Tensor,
        scale: torch.Tensor,
        zero: torch.Tensor,
        column_scale: torch.Tensor,
        *,
        bits: int,
        group_size: int,
        codebook: str = "uniform",
    ) -> "DualShiftWeight":
        """From unpacked codes u8 [n, k] and zero u8 [n, G] ([n, 0] for "nf4", "nf3"), as `ops.dual_shift_quantize` and
        `ops.obs_sweep` return them. Raises FormatError."""
        require_numbers(cls.NAME, bits, group_size, codebook)
        if codes.numel():
            require(int(codes.max()) < 1 << bits, cls.NAME, "codes", f"be below {1 << bits}", int(codes.max()))
        packed, (n, k) = ops.dual_shift_pack(codes, bits), codes.shape
        grid_tensors = (*pack_grid(cls.NAME, scale, zero, bits, codebook), column_scale.contiguous())
        weight = cls(packed, *grid_tensors, bits, group_size, codebook, (n, k))
        weight.validate()
        return weight

    @property
    def shape(self) -> tuple[int, int]:
        return self.dense_shape

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"codes": self.codes, "scale": self.scale, "zero": self.zero, "column_scale": self.column_scale}

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.dense_shape), **self._grid()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> "DualShiftWeight":
        dims = {"codes": 4, "scale": 3, "zero": 3, "column_scale": 1}
        require_names(cls.NAME, tensors, dims, config, {"shape", "bits", "group_size", "codebook"})
        weight = cls(
            tensors["codes"],
            tensors["scale"],
            tensors["zero"],
            tensors["column_scale"],
            config["bits"],
            config["group_size"],
            config["codebook"],
            require_shape(cls.NAME, config["shape"]),
        )
        weight.validate()
        return weight

    def validate(self) -> None:
        require_numbers(self.NAME, self.bits, self.group_size, self.codebook)
        (n, k), device = self.dense_shape, self.codes.device
        shape = (num_panels(n), -(-k // BLOCK_COLUMNS), self.bits, PANEL_ROWS * QUAD_COLUMNS)
        require_layout(self.NAME, "codes", self.codes, shape, torch.uint8, device)
        self._require_zero_margins()
        require_grid(self.NAME, n, k, device, self.scale, self.zero, self.column_scale, **self._grid())

    def _require_zero_margins(self) -> None:
        """Codes past n and k are 0: only the last panel and the last block of each panel have any."""
        (n, k), (panels, blocks, *_) = self.dense_shape, self.codes.shape
        if not self.codes.numel():
            return
        rows = ops.dual_shift_unpack(self.codes[-1:], PANEL_ROWS, BLOCK_COLUMNS * blocks, self.bits)
        columns = ops.dual_shift_unpack(self.codes[:, -1:], PANEL_ROWS * panels, BLOCK_COLUMNS, self.bits)
        margins = (
            ("rows", n, rows[(n - 1) % PANEL_ROWS + 1 :]),
            ("columns", k, columns[:, (k - 1) % BLOCK_COLUMNS + 1 :]),
        )
        for what, end, margin in margins:
            stray = int(margin.count_nonzero())
            require(stray == 0, self.NAME, "codes", f"be 0 in the {what} past {end}", f"{stray} other codes")

    def to_dense(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """[n, k] of dtype, by default float32, in which uniform weights are exact; a pruned weight is exactly 0."""
        tensors = (self.codes, self.scale, self.zero, self.column_scale)
        n, dtype = self.dense_shape[0], dtype or torch.float32
        return ops.dual_shift_dequantize(*tensors, n=n, **self._grid(), dtype=dtype)

    def _grid(self) -> dict[str, Any]:
        return {"bits": self.bits, "group_size": self.group_size, "codebook": self.codebook}
