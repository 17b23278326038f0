"""Argument checks that the ops over tiles share."""

import torch

from ..reference.tiered import MASK_BYTES, num_tiles
from ._check import require_float, require_tensor


def require_tiered(
    op: str,
    tiers: torch.Tensor,
    masks: torch.Tensor,
    values: torch.Tensor,
    panel_offsets: torch.Tensor,
    n: int,
    k: int,
    device: torch.device,
) -> None:
    """Checks the tensors of a weight of n rows and k columns against each other."""
    panels = num_tiles(n)
    require_tensor(tiers, op, "tiers", shape=(panels, num_tiles(k)), dtype=torch.uint8, device=device)
    require_tensor(masks, op, "masks", shape=(None, MASK_BYTES), dtype=torch.uint8, device=device)
    require_float(values, op, "values", shape=(None,), device=device)
    require_tensor(panel_offsets, op, "panel_offsets", shape=(panels + 1, 2), dtype=torch.int64, device=device)
