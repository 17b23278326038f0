"""Bitmap and codes of survivors: pruned and quantized at once; 3.3 bits per weight at 50 %, 4 bits, groups of 64."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch

from .. import ops
from ..reference.bitmap import unit_sizes
from ..reference.panels import QUAD_COLUMNS, to_quads
from ._base import PackedWeight
from ._bitmap import require_bitmap, shape_of, take
from ._grid import pack_grid, require, require_grid, require_layout, require_numbers, resolve_column_scale


@dataclass(frozen=True, eq=False)
class BitmapDualShiftWeight(PackedWeight):
    """The kept weights of [n, k] as codes behind a bitmap: (code - zero) * scale * column_scale.

    Attributes:
        bitmap: u8 [P, ceil(k / 4), 8], P = ceil(n / 16): a little-endian mask per quad, 4 columns of a panel of 16
            rows; bit 4 * row + b is column 4 * quad + (0, 2, 1, 3)[b]; bits past n and k are 0.
        codes: packed u8 [bytes]; per quad the survivors' codes in the order of its bits, a little-endian bit stream
            padded with 0 to a whole byte; quads and panels follow one another.
        scale: bfloat16 [P, G, 16], G = ceil(k / group_size); finite, > 0 (>= 0 for "nf4" and "nf3"), 0 past row n.
        zero: u8 [P, G, 8] up to 4 bits (byte i holds row i, and row i + 8 in its high nibble), [P, G, 16] beyond;
            [P, G, 0] for "nf4" and "nf3", which have none.
        column_scale: bfloat16 [k]; finite, > 0.
        bits: 2, 3, 4, 5, 6 or 8.
        group_size: columns per group; the last group of a row may be shorter.
        codebook: "uniform", "nf4" (bits = 4) or "nf3" (bits = 3).
        dense_shape: (n, k).

    Bytes: P * ceil(k / 4) * 8 + the sum over quads of ceil(kept * bits / 8) + P * G * (32 + 8 or 16) + 2 * k, without
    the zero points for "nf4" and "nf3".
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
        factors = resolve_column_scale(weight, mask, column_scale, group_size)
        grid: dict[str, Any] = {"bits": bits, "group_size": group_size, "codebook": codebook}
        codes, scale, zero = ops.dual_shift_quantize(weight, factors, mask, **grid)
        return cls.from_codes(codes, mask, scale, zero, factors, **grid)

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
        if codes.numel():
            require(int(codes.max()) < 1 << bits, cls.NAME, "codes", f"be below {1 << bits}", int(codes.max()))
        bitmap, packed, _ = ops.bitmap_dual_shift_pack(codes, mask, bits)
        shape = (codes.shape[0], codes.shape[1])
        panels = pack_grid(cls.NAME, scale, zero, bits, codebook)
        weight = cls(bitmap, packed, *panels, column_scale.contiguous(), bits, group_size, codebook, shape)
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
        require_bitmap(self.NAME, self.bitmap, self.dense_shape, QUAD_COLUMNS, partial(to_quads, columns=QUAD_COLUMNS))
        self._validate_codes()
        device = self.bitmap.device
        require_grid(
            self.NAME, *self.dense_shape, device, self.scale, self.zero, self.column_scale, **self._grid()
        )  # fmt: skip

    def _validate_codes(self) -> None:
        """As many bytes as the bitmap asks for, and 0 in the padding bits of each quad."""
        used_bits = unit_sizes(self.bitmap).flatten() * self.bits
        ends = ((used_bits + 7) // 8).cumsum(0)
        size = int(ends[-1]) if ends.numel() else 0
        require_layout(self.NAME, "codes", self.codes, (size,), torch.uint8, self.bitmap.device)
        padded = used_bits % 8 != 0
        last = self.codes[ends[padded] - 1]
        stray = int((last >> (used_bits[padded] % 8).to(torch.uint8)).count_nonzero())
        require(stray == 0, self.NAME, "codes", "have 0 in the padding bits of a quad", f"{stray} quads with others")

    def panel_offsets(self) -> torch.Tensor:
        """The byte of `codes` where each panel begins: int64 [P + 1], derived."""
        return ops.bitmap_panel_offsets(self.bitmap, self.bits)

    def to_dense(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """[n, k] of dtype, by default float32, in which uniform weights are exact; a pruned weight is exactly 0."""
        tensors = (self.bitmap, self.codes, self.panel_offsets(), self.scale, self.zero, self.column_scale)
        grid = self._grid()
        return ops.bitmap_dual_shift_dequantize(*tensors, n=self.dense_shape[0], **grid, dtype=dtype or torch.float32)

    def _grid(self) -> dict[str, Any]:
        return {"bits": self.bits, "group_size": self.group_size, "codebook": self.codebook}
