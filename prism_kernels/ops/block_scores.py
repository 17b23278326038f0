"""Scores of 16x16 tiles."""

import torch

from ..reference.block_scores import block_scores as reference
from ..reference.tiered import num_tiles
from ._check import require_float, require_tensor
from ._define import define

define(
    "block_scores(Tensor scores, Tensor? mask) -> Tensor",
    reference=reference,
    fake=lambda scores, mask: scores.new_empty(num_tiles(scores.shape[0]), num_tiles(scores.shape[1])),
)


def block_scores(scores: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """The sum of the scores in each 16x16 tile, in float32; three-tier pruning demotes the tiles with the lowest.

    A dense tile is scored by all its weights, a tile that is to be 2:4 or already is by those that it keeps: pass their
    mask. Tiles at the border sum what lies inside. Scores are for example |weight| * norm of the input column (Wanda).

    Args:
        scores: [n, k], float32, float16 or bfloat16.
        mask: bool [n, k], True where a weight counts, or None for all. A score that does not count may be NaN.

    Returns:
        float32 [ceil(n / 16), ceil(k / 16)].

    Example:
        >>> block_scores(torch.ones(17, 16))
        tensor([[256.], [16.]])
    """
    require_float(scores, "block_scores", "scores", shape=(None, None))
    if mask is not None:
        require_tensor(mask, "block_scores", "mask", shape=tuple(scores.shape), dtype=torch.bool, device=scores.device)
        mask = mask.contiguous()
    return torch.ops.prism.block_scores.default(scores.float().contiguous(), mask)
