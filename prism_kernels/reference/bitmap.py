"""Bitmaps in panel order: one little-endian mask per pair or quad of columns of a panel. Survivors follow its bits."""

from functools import reduce

import torch
import torch.nn.functional as F

from .panels import PANEL_ROWS, num_panels

PAIR_COLUMNS = 2


def to_pairs(values: torch.Tensor) -> torch.Tensor:
    """[n, k] -> [P, ceil(k / 2), 32]: element 2 * row + c of pair j is column 2 * j + c; 0 past n and k."""
    n, k = values.shape
    panels, pairs = num_panels(n), -(-k // PAIR_COLUMNS)
    padded = F.pad(values, (0, -k % PAIR_COLUMNS, 0, -n % PANEL_ROWS))
    return padded.reshape(panels, PANEL_ROWS, pairs, PAIR_COLUMNS).transpose(1, 2).flatten(2)


def from_pairs(pairs: torch.Tensor, n: int, k: int) -> torch.Tensor:
    """The inverse: [P, ceil(k / 2), 32] -> [n, k]."""
    panels, count = pairs.shape[:2]
    rows = pairs.reshape(panels, count, PANEL_ROWS, PAIR_COLUMNS).transpose(1, 2)
    return rows.reshape(panels * PANEL_ROWS, count * PAIR_COLUMNS)[:n, :k].contiguous()


def pack_bits(flags: torch.Tensor) -> torch.Tensor:
    """bool [..., 8 * b] -> u8 [..., b]; bit i % 8 of byte i // 8 is flag i."""
    bits = flags.unflatten(-1, (flags.shape[-1] // 8, 8)).to(torch.uint8)
    return (bits << torch.arange(8, dtype=torch.uint8, device=flags.device)).sum(-1, dtype=torch.uint8)


def unpack_bits(packed: torch.Tensor) -> torch.Tensor:
    """The inverse: u8 [..., b] -> bool [..., 8 * b]."""
    bits = packed.unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8, device=packed.device)
    return (bits & 1).bool().flatten(-2)


def count_bits(packed: torch.Tensor) -> torch.Tensor:
    """How many bits of each byte are set: u8, same shape."""
    pairs = packed - ((packed >> 1) & 0x55)
    nibbles = (pairs & 0x33) + ((pairs >> 2) & 0x33)
    return (nibbles + (nibbles >> 4)) & 0x0F


def unit_sizes(bitmap: torch.Tensor, bits: int | None = None) -> torch.Tensor:
    """What the survivors of each pair or quad take: int64 [P, units]; values, or for codes of `bits` whole bytes."""
    # A unit has at most 64 bits, so bytes hold their sum: `sum` would first copy the bitmap in int64.
    counts = reduce(torch.add, count_bits(bitmap).unbind(-1)).long()
    return counts if bits is None else (counts * bits + 7) // 8


def panel_offsets(bitmap: torch.Tensor, bits: int | None = None) -> torch.Tensor:
    """Where each panel begins in the values or, given `bits`, in the bytes of codes: int64 [P + 1]."""
    return F.pad(unit_sizes(bitmap, bits).sum(1).cumsum(0), (1, 0))


def first_bits(kept: torch.Tensor, bits: int) -> torch.Tensor:
    """bool [P, Q, 64] -> the first stream bit of each survivor's code, in order: int64 [survivors]."""
    sizes = unit_sizes(pack_bits(kept), bits)
    starts = (sizes.flatten().cumsum(0).view_as(sizes) - sizes) * 8
    return (starts.unsqueeze(-1) + (kept.cumsum(-1) - 1) * bits)[kept]
