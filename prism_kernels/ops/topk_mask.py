"""Masks of an exact number of the largest scores."""

import torch

from ..reference.topk_mask import topk_mask as reference
from ._check import require, require_float
from ._define import define

define(
    "topk_mask(Tensor scores, int keep, str scope) -> Tensor",
    reference=reference,
    fake=lambda scores, keep, scope: scores.new_empty(scores.shape, dtype=torch.bool),
)

SCOPES = ("row", "matrix")


def topk_mask(scores: torch.Tensor, keep: int, scope: str) -> torch.Tensor:
    """Keeps exactly the `keep` largest scores of every row, or of the whole matrix.

    Among equal scores the lower (flattened) index is pruned first; NaN counts as -inf and -0.0 equals 0.0.

    Args:
        scores: [n, k], float32, float16 or bfloat16.
        keep: how many stay, per row (scope "row", 0 <= keep <= k) or in total (scope "matrix", 0 <= keep <= n * k).
        scope: "row" or "matrix".

    Returns:
        bool [n, k], True where a weight is kept.

    Example:
        >>> topk_mask(torch.tensor([[3.0, 1.0, 2.0]]), 2, "row")
        tensor([[ True, False,  True]])
    """
    require_float(scores, "topk_mask", "scores", shape=(None, None))
    require(scope in SCOPES, "topk_mask", "scope", "be 'row' or 'matrix'", repr(scope))
    size = scores.shape[1] if scope == "row" else scores.numel()
    require(0 <= keep <= size, "topk_mask", "keep", f"be between 0 and {size}", keep)
    return torch.ops.prism.topk_mask.default(scores.float().contiguous(), keep, scope)
