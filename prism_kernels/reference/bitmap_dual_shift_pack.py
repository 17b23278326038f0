"""Codes of survivors: per 64-column block a little-endian bit stream, padded to a whole byte."""

import torch

from .bitmap import block_starts, first_bits, from_mask


def bitmap_dual_shift_pack(
    codes: torch.Tensor, mask: torch.Tensor, bits: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """codes uint8 [n, k], mask bool [n, k] -> bitmap, packed codes uint8 [bytes], row_offsets int32 [n + 1]."""
    bitmap = from_mask(mask)
    starts, positions = block_starts(bitmap, bits), first_bits(bitmap, bits)
    stream = torch.zeros(int(starts[-1]) * 8, dtype=torch.uint8, device=codes.device)
    for bit in range(bits):
        stream[positions + bit] = (codes[mask] >> bit) & 1
    shifts = torch.arange(8, dtype=torch.uint8, device=codes.device)
    packed = (stream.reshape(-1, 8) << shifts).sum(-1, dtype=torch.uint8)
    blocks = bitmap.shape[1] // 8
    row_ends = starts[torch.arange(codes.shape[0] + 1, device=codes.device) * blocks]
    return bitmap, packed, row_ends.int()
