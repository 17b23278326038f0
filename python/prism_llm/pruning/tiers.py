"""Progressive three-tier pruning (Jiajun-Ji/wanda): square blocks of a weight are dense, 2:4, or keep their k largest.

Blocks only ever go down: dense -> 2:4 -> top-k. One step from a map to new targets has two stages:

1. dense blocks, scored by the sum of all their |W_ij| ||X_j||: the lowest become 2:4;
2. all 2:4 blocks, those of stage 1 included, scored anew by the sum over the weights that they keep: the lowest become
   top-k.

Inside a block weights are chosen by |W| alone: 2 of every 4 columns, and of a top-k block the k largest of what its 2:4
mask kept. Blocks at the border are those of the weight padded with zeros.

Limits: the side of a block is a multiple of 16, because weights are stored in tiles of 16x16.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from prism_kernels import ops
from prism_kernels.reference.tiered import DENSE, SPARSE24, TILE, TOP_K, num_tiles

from .scores import magnitude_score, wanda_score

TIER_NAMES = ("dense", "2:4", "top-k")

# Of a strip of blocks: its scores and masks, many times as large as the weights, are all that is in memory of them.
_STRIP_WEIGHTS = 2**18


def tier_counts(blocks: int, shares: Sequence[float]) -> tuple[int, int, int]:
    """How many of `blocks` are dense, 2:4 and top-k: bounds are rounded half up, from the decimals as written.

    `int(blocks * (1.0 - 0.9))` of floats, as in the original, is 9 of 100: a block short.
    """
    dense, middle, _ = (Fraction(repr(float(share))) for share in shares)
    first = _round_half_up(blocks * dense)
    second = _round_half_up(blocks * (dense + middle))
    return first, second - first, blocks - second


def tier_sparsity(shares: Sequence[float], top_k: int, block_size: int) -> float:
    """The share of weights that whole blocks in these shares prune."""
    return shares[1] / 2 + shares[2] * (1 - top_k / block_size**2)


def map_shape(shape: Sequence[int], block_size: int) -> tuple[int, int]:
    """The shape of the tier map of a weight [n, k]."""
    return -(-shape[0] // block_size), -(-shape[1] // block_size)


def demote(
    weight: Tensor,
    norms: Tensor | None,
    tiers: Tensor,
    shares: Sequence[float],
    *,
    block_size: int = TILE,
    top_k: int = 10,
) -> tuple[Tensor, Tensor]:
    """One step of progressive three-tier pruning.

    Args:
        weight: [n, k], float32, float16 or bfloat16, already pruned where `tiers` is not dense.
        norms: float32 [k], L2 norm over tokens of each input; None scores by |W| alone.
        tiers: u8 [ceil(n / block_size), ceil(k / block_size)], 0 dense, 1 2:4, 2 top-k: where the weight stands.
        shares: the targets (dense, 2:4, top-k), which sum to 1.
        block_size: side of a block, a multiple of 16.
        top_k: weights that a top-k block keeps.

    Returns:
        The new map, and the mask (bool [n, k], True = kept).

    Raises:
        ValueError: the map has fewer dense or more top-k blocks than the targets ask: blocks never go up.
    """
    tiers = tiers.clone()
    dense, middle, least = tier_counts(tiers.numel(), shares)
    held = [int((tiers == tier).sum()) for tier in (DENSE, SPARSE24, TOP_K)]
    if held[0] < dense or held[2] > least:
        raise ValueError(
            f"demote: tiers must have at least {dense} dense and at most {least} top-k blocks for the shares "
            f"{list(shares)}, got {held[0]} and {held[2]}"
        )
    every, paired = _block_sums(weight, norms, block_size)
    _demote_lowest(tiers, every, DENSE, SPARSE24, held[0] - dense)
    pairs = int((tiers == SPARSE24).sum())
    _demote_lowest(tiers, paired, SPARSE24, TOP_K, pairs - middle)
    return tiers, tier_mask(weight, tiers, block_size=block_size, top_k=top_k)


def tier_mask(weight: Tensor, tiers: Tensor, *, block_size: int = TILE, top_k: int = 10) -> Tensor:
    """The mask (bool [n, k], True = kept) that a tier map gives `weight`, by |W|; lower indices lose ties."""
    mask = torch.empty(weight.shape, dtype=torch.bool, device=weight.device)
    for blocks, rows in _strips(weight.shape, block_size):
        mask[rows] = _strip_mask(weight[rows], tiers[blocks], block_size, top_k)
    return mask


def require_pruned(name: str, weight: Tensor, tiers: Tensor, *, block_size: int, top_k: int) -> None:
    """Raises ValueError, naming the linear, unless `weight` [n, k] has the zeros that its tier map says."""
    expected = map_shape(weight.shape, block_size)
    if tuple(tiers.shape) != expected:
        raise ValueError(f"tier map of {name}: must have shape {list(expected)}, got {list(tiers.shape)}")
    if tiers.numel() and int(tiers.max()) > TOP_K:
        raise ValueError(f"tier map of {name}: must hold tiers from 0 to {TOP_K}, got {int(tiers.max())}")
    stray = 0
    for blocks, rows in _strips(weight.shape, block_size):
        kept = _strip_mask(weight[rows], tiers[blocks], block_size, top_k)
        stray += int(((weight[rows] != 0) & ~kept).count_nonzero())
    if stray:
        raise ValueError(
            f"tier map of {name}: must be that of its weight, got {stray} weights that the map prunes and that are not "
            "0: a map of another model, or of another iteration"
        )


def expand_tiers(tiers: Tensor, shape: Sequence[int], block_size: int) -> Tensor:
    """The map of blocks as a map of the 16x16 tiles of a weight [n, k], as `TieredWeight` stores it."""
    times = block_size // TILE
    tiles = tiers.repeat_interleave(times, 0).repeat_interleave(times, 1)
    return tiles[: num_tiles(shape[0]), : num_tiles(shape[1])].contiguous()


def shrink_tiers(tiles: Tensor, block_size: int) -> Tensor:
    """The inverse: the map of blocks, of the tiles that a `TieredWeight` stores (its empty tiles are top-k ones)."""
    times = block_size // TILE
    return tiles[::times, ::times].clamp(max=TOP_K).contiguous()


def _round_half_up(value: Fraction) -> int:
    return int(value + Fraction(1, 2))


def _demote_lowest(tiers: Tensor, scores: Tensor, source: int, target: int, count: int) -> None:
    """Moves the `count` blocks of tier `source` with the lowest scores to `target`; the lower index goes first."""
    where = (tiers == source).flatten().nonzero().flatten()
    order = scores.flatten()[where].argsort(stable=True)
    tiers.view(-1)[where[order[:count]]] = target


def _strips(shape: Sequence[int], block_size: int) -> Iterator[tuple[slice, slice]]:
    """Some rows of blocks at a time, so that copies of them stay small: as rows of the map, and of a weight [n, k]."""
    n, k = shape
    step = max(1, _STRIP_WEIGHTS // (block_size * max(k, 1)))
    for first in range(0, -(-n // block_size) if k else 0, step):
        yield slice(first, first + step), slice(first * block_size, min((first + step) * block_size, n))


def _block_sums(weight: Tensor, norms: Tensor | None, block_size: int) -> tuple[Tensor, Tensor]:
    """The score of each block by all its weights, and by those that 2:4 keeps."""
    shape = [num_tiles(size) for size in weight.shape]
    every, paired = (torch.zeros(shape, dtype=torch.float32, device=weight.device) for _ in range(2))
    for _, rows in _strips(weight.shape, block_size):
        strip = weight[rows]
        score = magnitude_score(strip) if norms is None else wanda_score(strip, norms)
        pairs = ops.nm_mask(_padded_magnitude(strip, block_size), 2, 4)[: strip.shape[0], : strip.shape[1]]
        tiles = slice(rows.start // TILE, num_tiles(rows.stop))
        every[tiles], paired[tiles] = ops.block_scores(score), ops.block_scores(score, pairs)
    return _sum_tiles(every, block_size), _sum_tiles(paired, block_size)


def _sum_tiles(tiles: Tensor, block_size: int) -> Tensor:
    """The scores of blocks from those of their 16x16 tiles."""
    times = block_size // TILE
    if times == 1:
        return tiles
    padded = F.pad(tiles, (0, -tiles.shape[1] % times, 0, -tiles.shape[0] % times))
    return padded.unflatten(0, (-1, times)).unflatten(2, (-1, times)).sum((1, 3))


def _strip_mask(weight: Tensor, tiers: Tensor, block_size: int, top_k: int) -> Tensor:
    """`tier_mask` of some rows of blocks."""
    n, k = weight.shape
    magnitude = _padded_magnitude(weight, block_size)
    pairs = ops.nm_mask(magnitude, 2, 4)
    blocks = _to_blocks(pairs.clone(), block_size)  # [rows of blocks, columns of blocks, block_size ** 2]
    blocks[tiers == DENSE] = True
    last = tiers == TOP_K
    if bool(last.any()):
        candidates = torch.where(pairs, magnitude, -1.0)
        scores = _to_blocks(candidates, block_size)[last]
        # A pruned weight is exactly 0: it does not come back only because a block has fewer than k others.
        blocks[last] = ops.topk_mask(scores, min(top_k, scores.shape[1]), "row") & (scores > 0)
    return _from_blocks(blocks, block_size)[:n, :k]


def _padded_magnitude(weight: Tensor, block_size: int) -> Tensor:
    """|W| in float32, whole blocks of it."""
    n, k = weight.shape
    return F.pad(magnitude_score(weight), (0, -k % block_size, 0, -n % block_size))


def _to_blocks(padded: Tensor, size: int) -> Tensor:
    """[n, k], multiples of `size` -> [n / size, k / size, size * size], row by row."""
    return padded.unflatten(0, (-1, size)).unflatten(2, (-1, size)).transpose(1, 2).flatten(2)


def _from_blocks(blocks: Tensor, size: int) -> Tensor:
    return blocks.unflatten(2, (size, size)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
