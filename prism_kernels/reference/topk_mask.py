"""Top-k masks: the largest scores of every row, or of the whole matrix, in an exact number."""

import torch


def topk_mask(scores: torch.Tensor, keep: int, scope: str) -> torch.Tensor:
    """scores [n, k] -> bool [n, k] with `keep` True per row (scope "row") or in total ("matrix").

    Ties: the lower (flattened) index is pruned first. NaN counts as -inf.
    """
    ordered = torch.where(scores.isnan(), -torch.inf, scores)
    rows = ordered if scope == "row" else ordered.reshape(1, -1)
    kept = rows.argsort(dim=-1, stable=True)[:, rows.shape[1] - keep :]
    return torch.zeros_like(rows, dtype=torch.bool).scatter_(-1, kept, True).reshape(scores.shape)
