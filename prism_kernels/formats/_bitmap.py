"""Rules that the bitmap formats share."""

from collections.abc import Callable
from typing import Any

import torch

from ..reference.bitmap import pack_bits
from ..reference.panels import PANEL_ROWS, num_panels
from ._base import PackedWeight
from ._grid import require, require_layout


def require_bitmap(
    name: str, bitmap: torch.Tensor, shape: tuple[int, int], columns: int, to_units: Callable[..., torch.Tensor]
) -> None:
    """Layout of the bitmap of a weight of `shape`, one mask per `columns` columns of a panel by `to_units`, and no
    bit set past the last row and column."""
    n, k = shape
    panels, units = num_panels(n), -(-k // columns)
    require(isinstance(bitmap, torch.Tensor), name, "bitmap", "be a tensor", type(bitmap).__name__)
    require_layout(name, "bitmap", bitmap, (panels, units, 2 * columns), torch.uint8, bitmap.device)
    if bitmap.numel() == 0:
        return

    def outside(rows: int, width: int) -> torch.Tensor:
        return ~pack_bits(to_units(torch.ones(rows, width, dtype=torch.bool, device=bitmap.device)))[0]

    below = bitmap[-1] & outside(n - PANEL_ROWS * (panels - 1), units * columns)
    right = bitmap[:, -1] & outside(PANEL_ROWS, k - columns * (units - 1))
    stray = int(below.count_nonzero() + right.count_nonzero())
    require(stray == 0, name, "bitmap", f"have 0 in the bits past row {n} and column {k}", f"{stray} bytes with others")


def shape_of(name: str, config: dict[str, Any], keys: tuple[str, ...]) -> tuple[int, int]:
    """(n, k) of a config that must have exactly `keys`."""
    require(sorted(config) == sorted(keys), name, "config", f"have {', '.join(keys)}", sorted(config))
    shape = config["shape"]
    valid = (
        isinstance(shape, (list, tuple)) and len(shape) == 2 and all(type(size) is int and size >= 0 for size in shape)
    )
    require(valid, name, "shape", "be two sizes [n, k]", repr(shape))
    return int(shape[0]), int(shape[1])


def take(weight_class: type[PackedWeight], tensors: dict[str, Any], names: tuple[str, ...]) -> list[torch.Tensor]:
    """The tensors of `names` in that order; all must be there and nothing else."""
    require(sorted(tensors) == sorted(names), weight_class.NAME, "tensors", f"be {', '.join(names)}", sorted(tensors))
    return [tensors[name] for name in names]
