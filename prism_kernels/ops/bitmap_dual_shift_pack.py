"""Packing of the survivors' codes behind a bitmap."""

import torch

from ..reference.bitmap_dual_shift_pack import bitmap_dual_shift_pack as reference
from ._bitmap import bitmap_width, require_int32_offsets
from ._check import require_tensor
from ._define import define
from ._dual_shift import require_bits


def _fake(codes, mask, bits):
    n, k = codes.shape
    size = torch.library.get_ctx().new_dynamic_size()
    return (
        codes.new_empty(n, bitmap_width(k)),
        codes.new_empty(size),
        codes.new_empty(n + 1, dtype=torch.int32),
    )


define(
    "bitmap_dual_shift_pack(Tensor codes, Tensor mask, int bits) -> (Tensor, Tensor, Tensor)",
    reference=reference,
    fake=_fake,
)


def bitmap_dual_shift_pack(
    codes: torch.Tensor, mask: torch.Tensor, bits: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stores one bit per weight and the codes of the kept ones; nothing pruned is stored as a code.

    The codes of each 64-column block of a row are a little-endian bit stream padded to a whole byte; blocks and rows
    follow one another without gaps.

    Args:
        codes: uint8 [n, k], one code per element; only the low `bits` bits are stored.
        mask: bool [n, k], True = kept.
        bits: 2, 3, 4, 5, 6 or 8.

    Returns:
        bitmap uint8 [n, 8 * ceil(k / 64)]; packed codes uint8 [sum over blocks of ceil(kept * bits / 8)]; row_offsets
        int32 [n + 1], the byte where each row begins.

    Raises:
        ValueError: shapes that differ, an unknown bit width, or codes of 2**31 or more bytes.
    """
    name = "bitmap_dual_shift_pack"
    require_bits(name, bits)
    require_tensor(codes, name, "codes", shape=(None, None), dtype=torch.uint8)
    require_tensor(mask, name, "mask", shape=tuple(codes.shape), dtype=torch.bool, device=codes.device)
    n, k = codes.shape
    require_int32_offsets(name, n * bitmap_width(k) * bits, "bytes of codes")
    return torch.ops.prism.bitmap_dual_shift_pack.default(codes.contiguous(), mask.contiguous(), bits)
