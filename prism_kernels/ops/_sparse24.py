"""Argument checks that the ops over 2:4 weights in the order of sparse tensor cores share."""

import torch

from ..reference.panels import num_panels
from ..reference.sparse24 import LANES, num_tiles
from ._check import require, require_tensor
from ._dual_shift import require_grid_tensors

VALUE_DTYPES = (torch.float16, torch.bfloat16)
#: Codes of any other width run as a bitmap: what the kernels multiply are nibbles.
BITS = 4
#: A group is whole steps of the instruction, 32 columns.
GROUP_COLUMNS = 32


def packed_shape(dtype: torch.dtype, n: int, k: int) -> tuple[int, ...]:
    """Shape of the values (16-bit floats) or of the codes (int32) of a weight [n, k]."""
    panels, tiles = num_panels(n), num_tiles(k)
    return (panels, tiles, LANES, 2) if dtype == torch.int32 else (panels, tiles, 2, LANES, 8)


def columns_shape(n: int, k: int) -> tuple[int, int, int]:
    return num_panels(n), num_tiles(k), LANES


def require_packed(
    op: str, name: str, packed: torch.Tensor, columns: torch.Tensor, n: int, k: int,
    dtype: torch.dtype | tuple[torch.dtype, ...], device: torch.device | None = None,
) -> None:  # fmt: skip
    """values or codes (`name`) and columns of a weight [n, k] on one device."""
    require(n >= 0, op, "n", "be at least 0", n)
    require(k >= 0, op, "k", "be at least 0", k)
    require_tensor(packed, op, name, dtype=dtype, device=device)
    require_tensor(packed, op, name, shape=packed_shape(packed.dtype, n, k))
    require_tensor(columns, op, "columns", shape=columns_shape(n, k), dtype=torch.int32, device=packed.device)


def require_codes(
    op: str, codes: torch.Tensor, columns: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor,
    column_scale: torch.Tensor, n: int, k: int, group_size: int, device: torch.device,
) -> None:  # fmt: skip
    """Everything about the arguments of one weight [n, k] of 4-bit codes on `device`."""
    require(group_size >= 1 and group_size % GROUP_COLUMNS == 0, op, "group_size", "be a multiple of 32", group_size)
    require_packed(op, "codes", codes, columns, n, k, torch.int32, device)
    require_grid_tensors(op, n, k, device, scale, zero, column_scale, BITS, group_size, "uniform")
