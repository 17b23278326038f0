"""A CSR weight, dense again."""

import torch

from .csr import row_indices, widen


def csr_unpack(values: torch.Tensor, columns: torch.Tensor, row_offsets: torch.Tensor, k: int) -> torch.Tensor:
    """values, columns [kept], row_offsets [n + 1] -> [n, k], 0 elsewhere; offsets may be those of some rows only."""
    stored = slice(int(row_offsets[0]), int(row_offsets[-1]))
    dense = values.new_zeros(row_offsets.numel() - 1, k)
    dense[row_indices(row_offsets), widen(columns[stored])] = values[stored]
    return dense
