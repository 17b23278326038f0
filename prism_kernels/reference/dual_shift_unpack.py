"""The bit planes of panels back to codes."""

import torch

from .panels import from_quads, unpack_planes


def dual_shift_unpack(packed: torch.Tensor, n: int, k: int, bits: int) -> torch.Tensor:
    """packed u8 [ceil(n / 16), ceil(k / 32), bits, 64] -> codes u8 [n, k]; the inverse of `dual_shift_pack`."""
    return from_quads(unpack_planes(packed, bits), n, k)
