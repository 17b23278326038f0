"""2:4 sparsity and codes: exactly 2 of every 4 columns, quantized; 3.3 bits per weight at 4 bits and groups of 64."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..reference.bitmap import unpack_bits
from ..reference.codebooks import LEVELS
from ..reference.panels import from_quads
from ._grid import require_numbers
from ._sparse24 import fill_quads, require_quads
from .bitmap_dual_shift import BitmapDualShiftWeight


@dataclass(frozen=True, eq=False)
class Sparse24DualShiftWeight(BitmapDualShiftWeight):
    """A `BitmapDualShiftWeight` in which every quad (a row, columns 4 q to 4 q + 3) stores exactly 2 codes, a last quad
    cut short by k min(2, its columns); the pattern of sparse tensor cores. A quad that keeps fewer stores codes of 0:
    the zero point, or the level 0 of "nf4" and "nf3"."""

    NAME: ClassVar[str] = "sparse24_dual_shift"

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
    ) -> BitmapDualShiftWeight:
        """As `BitmapDualShiftWeight.from_codes`; FormatError also where a quad keeps more than 2."""
        require_numbers(cls.NAME, bits, group_size, codebook)
        if codebook == "uniform":
            nothing = zero[:, torch.arange(codes.shape[1], device=codes.device) // group_size]
        else:
            nothing = torch.full_like(codes, LEVELS[codebook].index(0.0))
        filled = fill_quads(cls.NAME, mask)
        grid = {"bits": bits, "group_size": group_size, "codebook": codebook}
        return super().from_codes(torch.where(mask, codes, nothing), filled, scale, zero, column_scale, **grid)  # type: ignore[arg-type]

    def validate(self) -> None:
        super().validate()
        require_quads(self.NAME, from_quads(unpack_bits(self.bitmap), *self.dense_shape))
