"""Bitmap and codes of survivors: pruned and quantized at once; 3.3 bits per weight at 50 %, 4 bits, groups of 64."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from .. import ops
from ..reference.bitmap import block_counts
from ._base import PackedWeight
from ._bitmap import require_bitmap, shape_of, take
from ._grid import require, require_layout, require_numbers, require_row_grid


@dataclass(frozen=True, eq=False)
class BitmapDualShiftWeight(PackedWeight):
    """The kept weights of [n, k] as codes behind a bitmap: (code - zero) * scale * column_scale.

    Attributes:
        bitmap: u8 [n, 8 * ceil(k / 64)]; bit j % 8 of byte j // 8 is column j, bits past k are 0.
        codes: packed u8 [bytes]; per 64-column block a little-endian bit stream of the survivors' codes, padded with 0
            to a whole byte; blocks and rows follow one another.
        scale: bfloat16 [n, G], G = ceil(k / group_size); finite, > 0 (>= 0 for "nf4" and "nf3").
        zero: u8 [n, ceil(G * bits / 8)], packed as by `ops.pack_codes`; [n, 0] for "nf4" and "nf3", which have none.
        column_scale: bfloat16 [k]; finite, > 0.
        bits: 2, 3, 4, 5, 6 or 8.
        group_size: columns per group; the last group of a row may be shorter.
        codebook: "uniform", "nf4" (bits = 4) or "nf3" (bits = 3).
        dense_shape: (n, k).

    Bytes: n * 8 * ceil(k / 64) + the sum over blocks of ceil(kept * bits / 8) + n * (2 * G + ceil(G * bits / 8))
    + 2 * k, without the zero points for "nf4" and "nf3".
    """

    NAME: ClassVar[str] = "bitmap_dual_shift"

    bitmap: torch.Tensor
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
    ) -> "BitmapDualShiftWeight":
        """Quantizes and packs a weight.

        Args:
            weight: [n, k], float32, float16 or bfloat16.
            mask: bool [n, k], True = kept; None keeps what differs from 0.
            bits, group_size, codebook: see the class.
            column_scale: bfloat16 [k], or a method of `ops.column_scale`.

        Raises:
            ValueError: weight holds NaN or infinity where it is kept, or an argument breaks its rule.
        """
        mask = weight != 0 if mask is None else mask
        if not bool(torch.where(mask, weight, 0).isfinite().all()):
            raise ValueError("BitmapDualShiftWeight.pack: weight must be finite where it is kept, got NaN or infinity")
        if isinstance(column_scale, str):
            column_scale = ops.column_scale(weight, mask, method=column_scale, group_size=group_size)
        grid: dict[str, Any] = {"bits": bits, "group_size": group_size, "codebook": codebook}
        codes, scale, zero = ops.dual_shift_quantize(weight, column_scale, mask, **grid)
        return cls.from_codes(codes, mask, scale, zero, column_scale, **grid)

    @classmethod
    def from_codes(
        cls,
        codes: torch.Tensor,
        mask: torch.Tensor,
        scale: torch.Tensor,
        zero: torch.Tensor,
        column_scale: torch.Tensor,
        *,
        bits: int,
        group_size: int,
        codebook: str = "uniform",
    ) -> "BitmapDualShiftWeight":
        """From unpacked codes u8 [n, k] and zero u8 [n, G] ([n, 0] for "nf4", "nf3"), as `ops.dual_shift_quantize` and
        `ops.obs_sweep` return them; what is pruned in `mask` is dropped. Raises FormatError."""
        require_numbers(cls.NAME, bits, group_size, codebook)
        for what, values in (("codes", codes), ("zero", zero)):
            if values.numel():
                require(int(values.max()) < 1 << bits, cls.NAME, what, f"be below {1 << bits}", int(values.max()))
        bitmap, packed, _ = ops.bitmap_dual_shift_pack(codes, mask, bits)
        shape = (codes.shape[0], codes.shape[1])
        grid_tensors = (scale.contiguous(), ops.pack_codes(zero, bits), column_scale.contiguous())
        weight = cls(bitmap, packed, *grid_tensors, bits, group_size, codebook, shape)
        weight.validate()
        return weight

    @property
    def shape(self) -> tuple[int, int]:
        return self.dense_shape

    def tensors(self) -> dict[str, torch.Tensor]:
        return {
            "bitmap": self.bitmap,
            "codes": self.codes,
            "scale": self.scale,
            "zero": self.zero,
            "column_scale": self.column_scale,
        }

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.dense_shape), **self._grid()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> "BitmapDualShiftWeight":
        shape = shape_of(cls.NAME, config, ("shape", "bits", "group_size", "codebook"))
        taken = take(cls, tensors, ("bitmap", "codes", "scale", "zero", "column_scale"))
        bitmap, codes, scale, zero, column_scale = taken
        grid = (config["bits"], config["group_size"], config["codebook"])
        weight = cls(bitmap, codes, scale, zero, column_scale, *grid, shape)
        weight.validate()
        return weight

    def validate(self) -> None:
        require_numbers(self.NAME, self.bits, self.group_size, self.codebook)
        require_bitmap(self.NAME, self.bitmap, self.dense_shape)
        self._validate_codes()
        device = self.bitmap.device
        require_row_grid(
            self.NAME, *self.dense_shape, device, self.scale, self.zero, self.column_scale, **self._grid()
        )  # fmt: skip

    def _validate_codes(self) -> None:
        """As many bytes as the bitmap asks for, and 0 in the padding bits of each block."""
        used_bits = block_counts(self.bitmap).flatten() * self.bits
        ends = ((used_bits + 7) // 8).cumsum(0)
        size = int(ends[-1]) if ends.numel() else 0
        require(size < 2**31, self.NAME, "codes", "be fewer than 2**31 bytes", size)
        require_layout(self.NAME, "codes", self.codes, (size,), torch.uint8, self.bitmap.device)
        partial = used_bits % 8 != 0
        last = self.codes[ends[partial] - 1]
        stray = int((last >> (used_bits[partial] % 8).to(torch.uint8)).count_nonzero())
        require(stray == 0, self.NAME, "codes", "have 0 in the padding bits of a block", f"{stray} blocks with others")

    def row_offsets(self) -> torch.Tensor:
        """The byte of `codes` where each row begins: int32 [n + 1], derived."""
        return ops.bitmap_row_offsets(self.bitmap, self.bits)

    def to_dense(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """[n, k] of dtype, by default float32, in which uniform weights are exact; a pruned weight is exactly 0."""
        tensors = (self.bitmap, self.codes, self.row_offsets(), self.scale, self.zero, self.column_scale)
        return ops.bitmap_dual_shift_dequantize(*tensors, **self._grid(), dtype=dtype or torch.float32)

    def _grid(self) -> dict[str, Any]:
        return {"bits": self.bits, "group_size": self.group_size, "codebook": self.codebook}
