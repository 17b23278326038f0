"""The tiered layout: panels of 16 rows, in them tiles of 16 columns, each dense, 2:4, top-k or empty.

A tile's bits stand in the order pair of columns, row, column: bit 32 * j + 2 * row + c is (row, column 2 * j + c), so
that 16 rows x 2 columns of bfloat16 fill a vector register, one row per lane. Survivors follow one another in the order
panel, tile, bit. A dense tile stores all its 256 weights and no mask, an empty one neither.
"""

import torch
import torch.nn.functional as F

from .bitmap import count_bits

TILE = 16
TILE_SIZE = TILE * TILE
MASK_BYTES = TILE_SIZE // 8
#: Codes of the tier map.
DENSE, SPARSE24, TOP_K, EMPTY = range(4)


def num_tiles(columns: int) -> int:
    return -(-columns // TILE)


def to_tiles(dense: torch.Tensor) -> torch.Tensor:
    """[n, k] -> [ceil(n / 16), ceil(k / 16), 256] in the order of bits; past n and k are 0."""
    n, k = dense.shape
    padded = F.pad(dense, (0, -k % TILE, 0, -n % TILE))
    tiles = padded.view(num_tiles(n), TILE, num_tiles(k), TILE // 2, 2).permute(0, 2, 3, 1, 4)
    return tiles.reshape(num_tiles(n), num_tiles(k), TILE_SIZE)


def from_tiles(tiles: torch.Tensor, n: int, k: int) -> torch.Tensor:
    """The inverse: [P, T, 256] -> [n, k]."""
    rows = tiles.view(*tiles.shape[:2], TILE // 2, TILE, 2).permute(0, 3, 1, 2, 4)
    return rows.reshape(tiles.shape[0] * TILE, tiles.shape[1] * TILE)[:n, :k].contiguous()


def pack_bits(kept: torch.Tensor) -> torch.Tensor:
    """bool [..., 256] -> uint8 [..., 32], bit 0 first."""
    bits = kept.unflatten(-1, (MASK_BYTES, 8)).to(torch.uint8)
    return (bits << torch.arange(8, dtype=torch.uint8, device=kept.device)).sum(-1, dtype=torch.uint8)


def unpack_bits(masks: torch.Tensor) -> torch.Tensor:
    """The inverse: uint8 [..., 32] -> bool [..., 256]."""
    return (masks.unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8, device=masks.device) & 1).bool().flatten(-2)


def stores_mask(tiers: torch.Tensor) -> torch.Tensor:
    return (tiers == SPARSE24) | (tiers == TOP_K)


def panel_offsets(tiers: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Where each panel begins in `masks` (rows) and in `values` (elements): int64 [P + 1, 2]."""
    masked = stores_mask(tiers)
    kept = (tiers == DENSE).long() * TILE_SIZE
    kept[masked] = count_bits(masks).sum(-1)
    return F.pad(torch.stack([masked.sum(1), kept.sum(1)], dim=1).cumsum(0), (0, 0, 1, 0))
