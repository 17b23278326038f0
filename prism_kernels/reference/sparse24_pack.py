"""2:4 weights in the order of sparse tensor cores: two elements of each quad of columns, and which two."""

import torch

from .sparse24 import order_codes, order_columns, order_values, to_quads


def sparse24_pack(weight: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """weight [n, k], mask bool [n, k] -> values [P, T, 2, 32, 8], or for uint8 the codes int32 [P, T, 32, 2]; columns
    int32 [P, T, 32]. A quad that keeps fewer than 2 stores 0 at its first pruned columns; of more the first 2 count."""
    kept = to_quads(mask)
    chosen = (~kept).sort(dim=-1, stable=True).indices[..., :2].sort(dim=-1).values
    pairs = torch.where(kept, to_quads(weight), 0).gather(-1, chosen)
    packed = order_codes(pairs & 15) if weight.dtype == torch.uint8 else order_values(pairs)
    return packed.contiguous(), order_columns(chosen)
