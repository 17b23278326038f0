"""A weight in tiles, dense again."""

import torch

from .tiered import DENSE, TILE_SIZE, from_tiles, stores_mask, unpack_bits


def tiered_unpack(
    tiers: torch.Tensor, masks: torch.Tensor, values: torch.Tensor, panel_offsets: torch.Tensor, n: int, k: int
) -> torch.Tensor:
    """tiers u8 [P, T], masks u8 [tiles with a mask, 32], values [kept] -> [n, k], a pruned weight is 0.

    The panels may be some of a larger weight, then `panel_offsets` [P + 1, 2] says where they begin in both streams.
    """
    (first_mask, first_value), (end_mask, end_value) = panel_offsets[0].tolist(), panel_offsets[-1].tolist()
    kept = (tiers == DENSE).unsqueeze(-1).repeat(1, 1, TILE_SIZE)
    kept[stores_mask(tiers)] = unpack_bits(masks[first_mask:end_mask])
    tiles = values.new_zeros(kept.shape)
    tiles[kept] = values[first_value:end_value]
    return from_tiles(tiles, n, k)
