"""Bit packing of integer codes."""

import torch

from ..reference.pack_codes import pack_codes as reference
from ._check import require_tensor
from ._define import define
from ._dual_shift import packed_bytes, require_bits

define(
    "pack_codes(Tensor codes, int bits) -> Tensor",
    reference=reference,
    fake=lambda codes, bits: codes.new_empty(codes.shape[0], packed_bytes(codes.shape[1], bits)),
)


def pack_codes(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Packs each row of codes into a little-endian bit stream.

    Code i takes the stream bits [i * bits, (i + 1) * bits); stream bit t is bit t % 8 of byte t // 8. Padding bits of
    the last byte are 0. Only the low `bits` bits of a code are stored.

    Args:
        codes: u8 [n, c], values below 2**bits.
        bits: 2, 3, 4, 5, 6 or 8.

    Returns:
        u8 [n, ceil(c * bits / 8)].

    Example:
        >>> pack_codes(torch.tensor([[1, 2, 3]], dtype=torch.uint8), 4)
        tensor([[33,  3]], dtype=torch.uint8)
    """
    require_tensor(codes, "pack_codes", "codes", shape=(None, None), dtype=torch.uint8)
    require_bits("pack_codes", bits)
    return torch.ops.prism.pack_codes.default(codes.contiguous(), bits)
