"""Codes of survivors: per quad of columns of a panel a little-endian bit stream, padded to a whole byte."""

import torch

from .bitmap import first_bits, pack_bits, panel_offsets
from .panels import QUAD_COLUMNS, to_quads


def bitmap_dual_shift_pack(
    codes: torch.Tensor, mask: torch.Tensor, bits: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """codes u8 [n, k], mask bool [n, k] -> bitmap u8 [P, ceil(k / 4), 8], packed codes u8 [bytes], panel_offsets int64
    [P + 1] in bytes."""
    kept = to_quads(mask, QUAD_COLUMNS)
    bitmap, survivors = pack_bits(kept), to_quads(codes, QUAD_COLUMNS)[kept]
    positions, offsets = first_bits(kept, bits), panel_offsets(bitmap, bits)
    stream = torch.zeros(int(offsets[-1]) * 8, dtype=torch.bool, device=codes.device)
    for bit in range(bits):
        stream[positions + bit] = ((survivors >> bit) & 1).bool()
    return bitmap, pack_bits(stream), offsets
