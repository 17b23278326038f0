"""N:M masks."""

import torch

from ..reference.nm_mask import nm_mask as reference
from ._check import require, require_tensor
from ._define import define

define(
    "nm_mask(Tensor scores, int n_keep, int m) -> Tensor",
    reference=reference,
    fake=lambda scores, n_keep, m: scores.new_empty(scores.shape, dtype=torch.bool),
)


def nm_mask(scores: torch.Tensor, n_keep: int, m: int) -> torch.Tensor:
    """Keeps the `n_keep` largest of every `m` consecutive scores in a row.

    Among equal scores the lower index is pruned first; NaN counts as -inf. A last group of r < m scores keeps
    ceil(n_keep * r / m).

    Args:
        scores: [n, k], float32, float16 or bfloat16.
        n_keep: how many of each group stay, 0 <= n_keep <= m ("2:4" is n_keep=2, m=4).
        m: group width along k, >= 1.

    Returns:
        bool [n, k], True where a weight is kept.

    Example:
        >>> nm_mask(torch.tensor([[3.0, 1.0, 2.0, 4.0]]), 2, 4)
        tensor([[ True, False, False,  True]])
    """
    require_tensor(
        scores,
        "nm_mask",
        "scores",
        shape=(None, None),
        dtype=(torch.float32, torch.float16, torch.bfloat16),
    )
    require(m >= 1, "nm_mask", "m", "be at least 1", m)
    require(0 <= n_keep <= m, "nm_mask", "n_keep", f"be between 0 and m={m}", n_keep)
    return torch.ops.prism.nm_mask.default(scores.float().contiguous(), n_keep, m)
