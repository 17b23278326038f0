"""2:4 weights back from the order of sparse tensor cores."""

import torch

from .sparse24 import from_quads, restore_columns, restore_pairs


def sparse24_unpack(packed: torch.Tensor, columns: torch.Tensor, n: int, k: int) -> torch.Tensor:
    """-> weight [n, k] in the dtype of values, or uint8 of codes; 0 where nothing is stored."""
    chosen, pairs = restore_columns(columns), restore_pairs(packed)
    dtype = torch.uint8 if packed.dtype == torch.int32 else packed.dtype
    quads = torch.zeros(*pairs.shape[:-1], 4, dtype=dtype, device=packed.device)
    return from_quads(quads.scatter(-1, chosen, pairs.to(dtype)), n, k)


def sparse24_stored(columns: torch.Tensor, n: int, k: int) -> torch.Tensor:
    """-> bool [n, k], what is stored, zeros too."""
    chosen = restore_columns(columns)
    quads = torch.zeros(*chosen.shape[:-1], 4, dtype=torch.bool, device=columns.device)
    return from_quads(quads.scatter(-1, chosen, True), n, k)
