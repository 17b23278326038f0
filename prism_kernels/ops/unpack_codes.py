"""Bit unpacking of integer codes."""

import torch

from ..reference.unpack_codes import unpack_codes as reference
from ._check import require, require_tensor
from ._define import define
from ._dual_shift import packed_bytes, require_bits

define(
    "unpack_codes(Tensor packed, int bits, int count) -> Tensor",
    reference=reference,
    fake=lambda packed, bits, count: packed.new_empty(packed.shape[0], count),
)


def unpack_codes(packed: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """The inverse of `pack_codes`.

    Args:
        packed: u8 [n, ceil(count * bits / 8)].
        bits: 2, 3, 4, 5, 6 or 8.
        count: codes per row, >= 0.

    Returns:
        u8 [n, count].

    Example:
        >>> unpack_codes(torch.tensor([[33, 3]], dtype=torch.uint8), 4, 3)
        tensor([[1, 2, 3]], dtype=torch.uint8)
    """
    require_bits("unpack_codes", bits)
    require(count >= 0, "unpack_codes", "count", "be at least 0", count)
    require_tensor(packed, "unpack_codes", "packed", shape=(None, packed_bytes(count, bits)), dtype=torch.uint8)
    return torch.ops.prism.unpack_codes.default(packed.contiguous(), bits, count)
