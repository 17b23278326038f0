"""Argument checks that the bitmap ops share."""

import torch

from ._check import require, require_float, require_tensor
from ._dual_shift import require_grid, require_row_grid_tensors


def bitmap_width(k: int) -> int:
    """Bytes of one bitmap row: whole 64-column blocks."""
    return -(-k // 64) * 8


def require_int32_offsets(op: str, total: int, what: str) -> None:
    if total >= 2**31:
        raise ValueError(f"{op}: {what} must be fewer than 2**31 (row offsets are int32), got {total}")


def require_bitmap(op: str, bitmap: torch.Tensor, row_offsets: torch.Tensor, k: int, device: torch.device) -> int:
    """Checks the two tensors against k columns; returns n."""
    require_tensor(bitmap, op, "bitmap", shape=(None, bitmap_width(k)), dtype=torch.uint8, device=device)
    n = bitmap.shape[0]
    require_tensor(row_offsets, op, "row_offsets", shape=(n + 1,), dtype=torch.int32, device=device)
    return n


def require_activations(op: str, x: torch.Tensor) -> None:
    require_float(x, op, "x")
    require(x.dim() >= 1, op, "x", "have at least 1 dimension", x.dim())


def require_bias(op: str, bias: torch.Tensor | None, n: int, x: torch.Tensor) -> None:
    if bias is not None:
        require_tensor(bias, op, "bias", shape=(n,), dtype=x.dtype, device=x.device)


def require_bitmap_dual_shift(
    op: str,
    bitmap: torch.Tensor,
    codes: torch.Tensor,
    row_offsets: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    *,
    bits: int,
    group_size: int,
    codebook: str,
) -> tuple[int, int]:
    """Checks the tensors of one weight against each other; returns (n, k)."""
    require_grid(op, bits, group_size, codebook)
    require_tensor(column_scale, op, "column_scale", shape=(None,), dtype=torch.bfloat16)
    k, device = column_scale.shape[0], column_scale.device
    n = require_bitmap(op, bitmap, row_offsets, k, device)
    require_tensor(codes, op, "codes", shape=(None,), dtype=torch.uint8, device=device)
    require_row_grid_tensors(op, n, k, device, scale, zero, column_scale, bits, group_size, codebook)
    return n, k
