"""Argument checks that the bitmap ops share."""

import torch

from ..reference.panels import num_panels
from ._check import require, require_tensor
from ._dual_shift import require_grid, require_grid_tensors


def bitmap_shape(n: int, k: int, columns: int) -> tuple[int, int, int]:
    """[P, ceil(k / columns), bytes] of a bitmap with one mask per `columns` (2 or 4) columns of a panel of 16 rows."""
    return num_panels(n), -(-k // columns), 2 * columns


def require_bitmap(
    op: str, bitmap: torch.Tensor, panel_offsets: torch.Tensor, n: int, k: int, columns: int, device: torch.device
) -> None:
    """The two tensors that say where the survivors of a weight [n, k] stand."""
    require(n >= 0, op, "n", "be at least 0", n)
    shape = bitmap_shape(n, k, columns)
    require_tensor(bitmap, op, "bitmap", shape=shape, dtype=torch.uint8, device=device)
    require_tensor(panel_offsets, op, "panel_offsets", shape=(shape[0] + 1,), dtype=torch.int64, device=device)


def require_bitmap_dual_shift(
    op: str,
    bitmap: torch.Tensor,
    codes: torch.Tensor,
    panel_offsets: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    *,
    n: int,
    bits: int,
    group_size: int,
    codebook: str,
) -> None:
    """Checks the tensors of one weight [n, k] against each other, k being the length of column_scale."""
    require_grid(op, bits, group_size, codebook)
    require_tensor(column_scale, op, "column_scale", shape=(None,), dtype=torch.bfloat16)
    k, device = column_scale.shape[0], column_scale.device
    require_bitmap(op, bitmap, panel_offsets, n, k, 4, device)
    require_tensor(codes, op, "codes", shape=(None,), dtype=torch.uint8, device=device)
    require_grid_tensors(op, n, k, device, scale, zero, column_scale, bits, group_size, codebook)
