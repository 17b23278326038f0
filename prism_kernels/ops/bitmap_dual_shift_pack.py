"""Packing of the survivors' codes behind a bitmap."""

import torch

from ..reference.bitmap_dual_shift_pack import bitmap_dual_shift_pack as reference
from ._bitmap import bitmap_shape
from ._check import require_tensor
from ._define import define
from ._dual_shift import require_bits


def _fake(codes, mask, bits):
    n, k = codes.shape
    shape = bitmap_shape(n, k, 4)
    size = torch.library.get_ctx().new_dynamic_size()
    return codes.new_empty(shape), codes.new_empty(size), codes.new_empty(shape[0] + 1, dtype=torch.int64)


define(
    "bitmap_dual_shift_pack(Tensor codes, Tensor mask, int bits) -> (Tensor, Tensor, Tensor)",
    reference=reference,
    fake=_fake,
)


def bitmap_dual_shift_pack(
    codes: torch.Tensor, mask: torch.Tensor, bits: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stores one bit per weight and the codes of the kept ones; nothing pruned is stored as a code.

    The codes of each quad (4 columns of a panel of 16 rows) are a little-endian bit stream in the order of the quad's
    bits, padded with 0 to a whole byte; quads and panels follow one another without gaps. P = ceil(n / 16).

    Args:
        codes: uint8 [n, k], one code per element; only the low `bits` bits are stored.
        mask: bool [n, k], True = kept.
        bits: 2, 3, 4, 5, 6 or 8.

    Returns:
        bitmap uint8 [P, ceil(k / 4), 8], a little-endian mask per quad: bit 4 * row + b is column 4 * quad + (0, 2, 1,
        3)[b], rows past n and columns past k are 0; packed codes uint8 [sum over quads of ceil(kept * bits / 8)];
        panel_offsets int64 [P + 1], the byte where each panel begins.

    Raises:
        ValueError: shapes that differ, or an unknown bit width.
    """
    name = "bitmap_dual_shift_pack"
    require_bits(name, bits)
    require_tensor(codes, name, "codes", shape=(None, None), dtype=torch.uint8)
    require_tensor(mask, name, "mask", shape=tuple(codes.shape), dtype=torch.bool, device=codes.device)
    return torch.ops.prism.bitmap_dual_shift_pack.default(codes.contiguous(), mask.contiguous(), bits)
