"""The CSR layout: survivors row by row with their columns in rising order; columns below 65536 take 16 bits."""

import torch

#: Up to this many columns they are stored as int16, the bits of an unsigned number: torch computes little with uint16.
MAX_NARROW = 1 << 16


def narrow(columns: torch.Tensor, k: int) -> torch.Tensor:
    """Columns of a weight with k of them, int64 -> int16 (bits of uint16) or int32."""
    return columns.to(torch.int32).to(torch.int16) if k <= MAX_NARROW else columns.to(torch.int32)


def widen(columns: torch.Tensor) -> torch.Tensor:
    """The inverse: int64."""
    return columns.long() & 0xFFFF if columns.dtype == torch.int16 else columns.long()


def row_indices(row_offsets: torch.Tensor) -> torch.Tensor:
    """The row of each survivor: int64 [kept]."""
    counts = row_offsets.long().diff()
    return torch.arange(counts.numel(), device=row_offsets.device).repeat_interleave(counts)
