"""2:4 sparsity: a bitmap weight that stores exactly 2 of every 4 columns; 9 bits per weight with 16-bit values."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..reference.bitmap import from_pairs, unpack_bits
from ._sparse24 import fill_quads, require_quads
from .bitmap import BitmapWeight


@dataclass(frozen=True, eq=False)
class Sparse24Weight(BitmapWeight):
    """A `BitmapWeight` in which every quad (a row, columns 4 q to 4 q + 3) stores exactly 2 weights, a last quad cut
    short by k min(2, its columns); the pattern of sparse tensor cores. A quad that keeps fewer stores explicit zeros.

    Bytes: P * ceil(k / 2) * 4 + n * (2 * floor(k / 4) + min(2, k % 4)) * element size, P = ceil(n / 16).
    """

    NAME: ClassVar[str] = "sparse24"

    @classmethod
    def pack(cls, weight: torch.Tensor, mask: torch.Tensor | None = None) -> BitmapWeight:
        """Packs weight [n, k]; `mask` bool [n, k] (True = kept), None keeps what differs from 0. FormatError where a
        quad keeps more than 2."""
        mask = weight != 0 if mask is None else mask
        return super().pack(torch.where(mask, weight, 0), fill_quads(cls.NAME, mask))

    def validate(self) -> None:
        super().validate()
        require_quads(self.NAME, from_pairs(unpack_bits(self.bitmap), *self.dense_shape))
