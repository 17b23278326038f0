"""Argument checks that the CSR ops share."""

import torch

from ._check import require, require_float, require_tensor


def require_csr(
    op: str, values: torch.Tensor, columns: torch.Tensor, row_offsets: torch.Tensor, k: int, device: torch.device
) -> int:
    """Checks the tensors of a weight of k columns against each other; returns n."""
    require_float(values, op, "values", shape=(None,), device=device)
    kept = (values.shape[0],)
    require_tensor(columns, op, "columns", shape=kept, dtype=(torch.int16, torch.int32), device=device)
    narrow = columns.dtype == torch.int16
    require(not narrow or k <= 1 << 16, op, "columns", "be int32 for more than 65536 columns", columns.dtype)
    require_tensor(row_offsets, op, "row_offsets", shape=(None,), dtype=(torch.int32, torch.int64), device=device)
    require(row_offsets.shape[0] >= 1, op, "row_offsets", "have n + 1 elements", row_offsets.shape[0])
    return row_offsets.shape[0] - 1
