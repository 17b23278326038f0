"""Column-scaled, group-quantized weights: every weight has a code, a pruned one the code of 0."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from .. import ops
from ._base import PackedWeight
from ._grid import (
    require,
    require_layout,
    require_names,
    require_numbers,
    require_row_grid,
    require_zero_tail,
    resolve_column_scale,
)


@dataclass(frozen=True, eq=False)
class DualShiftWeight(PackedWeight):
    """(q - z) * s * c: code q per weight, zero point z and scale s per (row, group), scale c per column.

    Attributes:
        codes: u8 [n, ceil(k * bits / 8)], rows of `ops.pack_codes`.
        scale: bfloat16 [n, G], G = ceil(k / group_size); finite, > 0 (>= 0 for "nf4" and "nf3").
        zero: u8 [n, ceil(G * bits / 8)], packed as the codes; [n, 0] for "nf4" and "nf3", which have none.
        column_scale: bfloat16 [k]; finite, > 0.
        bits: 2, 3, 4, 5, 6 or 8.
        group_size: columns per group; the last group of a row may be shorter.
        codebook: "uniform", "nf4" (bits = 4) or "nf3" (bits = 3).

    Bytes: n * ceil(k * bits / 8) + n * (2 * G + ceil(G * bits / 8)) + 2 * k, without the zero points for "nf4", "nf3".
    """

    NAME: ClassVar[str] = "dual_shift"

    codes: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    column_scale: torch.Tensor
    bits: int
    group_size: int
    codebook: str = "uniform"

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
        for what, values in (("codes", codes), ("zero", zero)):
            if values.numel():
                require(int(values.max()) < 1 << bits, cls.NAME, what, f"be below {1 << bits}", int(values.max()))
        packed = ops.pack_codes(codes, bits)
        packed_zero = ops.pack_codes(zero, bits)
        weight = cls(packed, scale.contiguous(), packed_zero, column_scale.contiguous(), bits, group_size, codebook)
        weight.validate()
        return weight

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.column_scale.shape[0]

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"codes": self.codes, "scale": self.scale, "zero": self.zero, "column_scale": self.column_scale}

    def config(self) -> dict[str, Any]:
        return {
            "shape": list(self.shape),
            "bits": self.bits,
            "group_size": self.group_size,
            "codebook": self.codebook,
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> "DualShiftWeight":
        dims = {"codes": 2, "scale": 2, "zero": 2, "column_scale": 1}
        require_names(cls.NAME, tensors, dims, config, {"shape", "bits", "group_size", "codebook"})
        weight = cls(
            tensors["codes"],
            tensors["scale"],
            tensors["zero"],
            tensors["column_scale"],
            config["bits"],
            config["group_size"],
            config["codebook"],
        )
        shape = list(weight.shape)
        require(list(config["shape"]) == shape, cls.NAME, "shape", f"be {shape} by the tensors", config["shape"])
        weight.validate()
        return weight

    def validate(self) -> None:
        require_numbers(self.NAME, self.bits, self.group_size, self.codebook)
        n, k = self.shape
        code_bits, device = k * self.bits, self.codes.device
        require_layout(self.NAME, "codes", self.codes, (n, -(-code_bits // 8)), torch.uint8, device)
        require_zero_tail(self.NAME, "codes", self.codes, code_bits)
        require_row_grid(self.NAME, n, k, device, self.scale, self.zero, self.column_scale, **self._grid())

    def to_dense(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """[n, k] of dtype, by default float32, in which uniform weights are exact; a pruned weight is exactly 0."""
        return ops.dual_shift_dequantize(*self.tensors().values(), **self._grid(), dtype=dtype or torch.float32)

    def _grid(self) -> dict[str, Any]:
        return {"bits": self.bits, "group_size": self.group_size, "codebook": self.codebook}
