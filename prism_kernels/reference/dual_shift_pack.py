"""Codes to the bit planes of panels."""

import torch

from .panels import BLOCK_COLUMNS, pack_planes, to_quads


def dual_shift_pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """codes u8 [n, k] -> u8 [ceil(n / 16), ceil(k / 32), bits, 64]; only the low `bits` bits of a code are stored, rows
    past n and columns past k are 0."""
    return pack_planes(to_quads(codes, BLOCK_COLUMNS), bits)
