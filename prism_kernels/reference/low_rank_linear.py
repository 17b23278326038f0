"""A linear over a weight of low rank: two products in float32, rounded once."""

import torch
import torch.nn.functional as F


def low_rank_linear(
    x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """x [m, k], a [rank, k], b [n, rank] -> x @ a^T @ b^T + bias, [m, n] in x.dtype."""
    hidden = F.linear(x.float(), a.float())
    return F.linear(hidden, b.float(), None if bias is None else bias.float()).to(x.dtype)
