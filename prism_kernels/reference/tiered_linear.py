"""A linear over a weight in tiles: unpack, multiply in float32, round once."""

import torch
import torch.nn.functional as F

from .tiered_unpack import tiered_unpack


def tiered_linear(
    x: torch.Tensor,
    tiers: torch.Tensor,
    masks: torch.Tensor,
    values: torch.Tensor,
    panel_offsets: torch.Tensor,
    bias: torch.Tensor | None,
    n: int,
) -> torch.Tensor:
    """x [m, k] -> [m, n] in x.dtype."""
    weight = tiered_unpack(tiers, masks, values, panel_offsets, n, x.shape[-1])
    return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)
