"""Packing of codes into the bit planes of panels."""

import torch

from ..reference.dual_shift_pack import dual_shift_pack as reference
from ._check import require_tensor
from ._define import define
from ._dual_shift import packed_shape, require_bits

define(
    "dual_shift_pack(Tensor codes, int bits) -> Tensor",
    reference=reference,
    fake=lambda codes, bits: codes.new_empty(packed_shape(codes.shape[0], codes.shape[1], bits)),
)


def dual_shift_pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Packs codes in panels of 16 rows and blocks of 32 columns, each block split into bit planes.

    The order is that of `prism_kernels/reference/panels.py`: byte 4 * row + b of quad q of a block holds the column
    4 * q + (0, 2, 1, 3)[b], and a plane of w bits keeps 8 / w quads of the block in each of its w vectors of 64 bytes.
    Widths 3, 5 and 6 are split into planes of 2 + 1, 4 + 1 and 4 + 2 bits, low bits first. Rows past n and columns past
    k are 0. Only the low `bits` bits of a code are stored.

    Args:
        codes: u8 [n, k], values below 2**bits.
        bits: 2, 3, 4, 5, 6 or 8.

    Returns:
        u8 [ceil(n / 16), ceil(k / 32), bits, 64].

    Example:
        >>> dual_shift_pack(torch.tensor([[1, 2, 3]], dtype=torch.uint8), 4)[0, 0, 0, :4]
        tensor([1, 3, 2, 0], dtype=torch.uint8)
    """
    require_tensor(codes, "dual_shift_pack", "codes", shape=(None, None), dtype=torch.uint8)
    require_bits("dual_shift_pack", bits)
    return torch.ops.prism.dual_shift_pack.default(codes.contiguous(), bits)
