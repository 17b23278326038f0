"""Unpacking of the bit planes of panels."""

import torch

from ..reference.dual_shift_unpack import dual_shift_unpack as reference
from ._check import require, require_tensor
from ._define import define
from ._dual_shift import packed_shape, require_bits

define(
    "dual_shift_unpack(Tensor packed, int n, int k, int bits) -> Tensor",
    reference=reference,
    fake=lambda packed, n, k, bits: packed.new_empty(n, k),
)


def dual_shift_unpack(packed: torch.Tensor, n: int, k: int, bits: int) -> torch.Tensor:
    """The inverse of `dual_shift_pack`.

    Args:
        packed: u8 [ceil(n / 16), ceil(k / 32), bits, 64].
        n: rows, >= 0.
        k: columns, >= 0.
        bits: 2, 3, 4, 5, 6 or 8.

    Returns:
        u8 [n, k].
    """
    op = "dual_shift_unpack"
    require_bits(op, bits)
    require(n >= 0, op, "n", "be at least 0", n)
    require(k >= 0, op, "k", "be at least 0", k)
    require_tensor(packed, op, "packed", shape=packed_shape(n, k, bits), dtype=torch.uint8)
    return torch.ops.prism.dual_shift_unpack.default(packed.contiguous(), n, k, bits)
