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

from collections.abc import Sequence
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from prism_kernels import ops
from prism_kernels.reference.tiered import DENSE, SPARSE24, TILE, TOP_K, num_tiles

TIER_NAMES = ("dense", "2:4", "top-k")


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
        weight: float32 [n, k], already pruned where `tiers` is not dense.
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
    score = weight.abs() if norms is None else weight.abs() * norms
    _demote_lowest(tiers, _block_sums(score, None, block_size), DENSE, SPARSE24, held[0] - dense)
    kept = tier_mask(weight, tiers, block_size=block_size, top_k=top_k)
    pairs = int((tiers == SPARSE24).sum())
    _demote_lowest(tiers, _block_sums(score, kept, block_size), SPARSE24, TOP_K, pairs - middle)
    return tiers, tier_mask(weight, tiers, block_size=block_size, top_k=top_k)


def tier_mask(weight: Tensor, tiers: Tensor, *, block_size: int = TILE, top_k: int = 10) -> Tensor:
    """The mask (bool [n, k], True = kept) that a tier map gives `weight`, by |W|; lower indices lose ties."""
    n, k = weight.shape
    magnitude = F.pad(weight.abs().float(), (0, -k % block_size, 0, -n % block_size))
    pairs = ops.nm_mask(magnitude, 2, 4)
    blocks = _to_blocks(pairs.clone(), block_size)  # [rows of blocks, columns of blocks, block_size ** 2]
    blocks[tiers == DENSE] = True
    last = tiers == TOP_K
    if bool(last.any()):
        candidates = torch.where(pairs, magnitude, -1.0)
        scores = _to_blocks(candidates, block_size)[last]
        # A pruned weight is exactly 0: it does not come back only because a block has fewer than k others.
        blocks[last] = ops.topk_mask(scores, min(top_k, scores.shape[1]), "row") & (scores > 0)
    return _from_blocks(blocks, block_size)[:n, :k].contiguous()


def require_pruned(name: str, weight: Tensor, tiers: Tensor, *, block_size: int, top_k: int) -> None:
    """Raises ValueError, naming the linear, unless `weight` [n, k] has the zeros that its tier map says."""
    expected = map_shape(weight.shape, block_size)
    if tuple(tiers.shape) != expected:
        raise ValueError(f"tier map of {name}: must have shape {list(expected)}, got {list(tiers.shape)}")
    if tiers.numel() and int(tiers.max()) > TOP_K:
        raise ValueError(f"tier map of {name}: must hold tiers from 0 to {TOP_K}, got {int(tiers.max())}")
    kept = tier_mask(weight, tiers, block_size=block_size, top_k=top_k)
    stray = int(((weight != 0) & ~kept).sum())
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


def _block_sums(score: Tensor, mask: Tensor | None, block_size: int) -> Tensor:
    tiles = ops.block_scores(score, mask)
    times = block_size // TILE
    if times == 1:
        return tiles
    padded = F.pad(tiles, (0, -tiles.shape[1] % times, 0, -tiles.shape[0] % times))
    return padded.unflatten(0, (-1, times)).unflatten(2, (-1, times)).sum((1, 3))


def _to_blocks(padded: Tensor, size: int) -> Tensor:
    """[n, k], multiples of `size` -> [n / size, k / size, size * size], row by row."""
    return padded.unflatten(0, (-1, size)).unflatten(2, (-1, size)).transpose(1, 2).flatten(2)


def _from_blocks(blocks: Tensor, size: int) -> Tensor:
    return blocks.unflatten(2, (size, size)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
