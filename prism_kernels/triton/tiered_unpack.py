"""A weight in tiles, dense again: a program takes a panel of 16 rows, 8 tiles at a time from the left.

Where a tile's mask and values begin is counted on the way: the loop carries both. Bound: 2 bytes written per weight and
what is stored of it read; panels are the only parallelism, n / 16 programs.
"""

import torch
import triton
import triton.language as tl

from ..reference.tiered import DENSE, EMPTY
from ._bits import bits_of, popcount
from ._launch import launch

_TILES = 8


@triton.jit
def _tiered_unpack_kernel(
    tiers, masks, values, panel_offsets, out, n, k, num_tiles, DENSE: tl.constexpr, EMPTY: tl.constexpr,
    TILES: tl.constexpr,
):  # fmt: skip
    panel = tl.program_id(0)
    next_mask = tl.load(panel_offsets + 2 * panel)
    next_value = tl.load(panel_offsets + 2 * panel + 1)
    word = tl.arange(0, 8)
    bit = tl.arange(0, 256)  # of a tile: 32 * pair of columns + 2 * row + column of the pair
    row = panel * 16 + (bit % 32) // 2
    for begin in range(0, num_tiles, TILES):
        tile = begin + tl.arange(0, TILES)
        tier = tl.load(tiers + panel.to(tl.int64) * num_tiles + tile, mask=tile < num_tiles, other=EMPTY).to(tl.int32)
        masked = ((tier != DENSE) & (tier != EMPTY)).to(tl.int32)
        which = next_mask + tl.cumsum(masked, axis=0) - masked
        words = tl.load(masks + which[:, None] * 8 + word[None, :], mask=(masked > 0)[:, None], other=0)
        words = tl.where((tier == DENSE)[:, None], -1, words)
        counts = tl.sum(popcount(words), axis=1)
        first = next_value + tl.cumsum(counts, axis=0) - counts
        kept = tl.reshape(bits_of(words), [TILES, 256])
        at = first[:, None] + tl.cumsum(kept, axis=1) - kept
        value = tl.load(values + at, mask=kept > 0, other=0.0)
        column = tile[:, None] * 16 + (2 * (bit // 32) + bit % 2)[None, :]
        inside = (row < n)[None, :] & (column < k)
        tl.store(out + row.to(tl.int64)[None, :] * k + column, value, mask=inside)
        next_mask += tl.sum(masked, axis=0)
        next_value += tl.sum(counts, axis=0)


def tiered_unpack(
    tiers: torch.Tensor, masks: torch.Tensor, values: torch.Tensor, panel_offsets: torch.Tensor, n: int, k: int
) -> torch.Tensor:
    """As `ops.tiered_unpack`."""
    out = torch.empty(n, k, dtype=values.dtype, device=values.device)
    launch(
        _tiered_unpack_kernel, (tiers.shape[0] if k else 0,), tiers=tiers, masks=masks.view(torch.int32), values=values,
        panel_offsets=panel_offsets, out=out, n=n, k=k, num_tiles=tiers.shape[1], DENSE=DENSE, EMPTY=EMPTY,
        TILES=_TILES,
    )  # fmt: skip
    return out
