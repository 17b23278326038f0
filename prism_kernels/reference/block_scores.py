"""Scores of 16x16 tiles, by which three-tier pruning chooses what becomes 2:4 or top-k."""

import torch
import torch.nn.functional as F

from .tiered import TILE


def block_scores(scores: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """scores [n, k] -> float32 [ceil(n / 16), ceil(k / 16)]: the sum over each tile of what the mask keeps."""
    kept = scores if mask is None else torch.where(mask, scores, 0)
    padded = F.pad(kept, (0, -kept.shape[1] % TILE, 0, -kept.shape[0] % TILE))
    tiles = padded.unflatten(0, (-1, TILE)).unflatten(2, (-1, TILE)) if padded.numel() else None
    if tiles is None:
        return scores.new_zeros(-(-scores.shape[0] // TILE), -(-scores.shape[1] // TILE))
    return tiles.sum((1, 3))
