"""Rules that the bitmap formats share."""

from typing import Any

import torch

from ._base import PackedWeight
from ._grid import require, require_layout


def require_bitmap(name: str, bitmap: torch.Tensor, shape: tuple[int, int]) -> None:
    """Layout and tail bits of the bitmap of a weight of `shape`."""
    n, k = shape
    require(isinstance(bitmap, torch.Tensor), name, "bitmap", "be a tensor", type(bitmap).__name__)
    require_layout(name, "bitmap", bitmap, (n, 8 * -(-k // 64)), torch.uint8, bitmap.device)
    if k % 64:
        tail = bitmap[:, k // 8 :].clone()
        tail[:, 0] >>= k % 8
        stray = int(tail.count_nonzero())
        require(stray == 0, name, "bitmap", f"have 0 in the bits past column {k}", f"{stray} bytes with bits set there")


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
