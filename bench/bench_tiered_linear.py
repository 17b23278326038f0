"""Three-tier tiles of 16 x 16 (35 % dense, 45 % 2:4, 20 % their 10 largest of 256) against dense bf16."""

import torch

from prism_kernels import ops
from prism_kernels.nn import TieredLinear

from . import gpu_linears
from .linears import linear_cases, packed
from .problems import Request
from .targets import TIERED

OP = "tiered_linear"
TILE = 16
SHARES, TOP_K = (0.35, 0.45, 0.20), 10


def tier_map(n: int, k: int) -> torch.Tensor:
    """u8 [n / 16, k / 16]: 0 dense, 1 2:4, 2 top-k, in the shares above, in random order."""
    generator = torch.Generator().manual_seed(n + k)
    draws = torch.rand(n // TILE, k // TILE, generator=generator)
    return (draws >= SHARES[0]).to(torch.uint8) + (draws >= SHARES[0] + SHARES[1]).to(torch.uint8)


def tier_mask(n: int, k: int, generator: torch.Generator) -> torch.Tensor:
    """bool [n, k]: what random scores would keep under the tier map."""
    scores = torch.rand(n, k, generator=generator)
    pairs = ops.nm_mask(scores, 2, 4)
    tiles = scores.view(n // TILE, TILE, k // TILE, TILE).transpose(1, 2).reshape(-1, TILE * TILE)
    largest = ops.topk_mask(tiles, TOP_K, "row").view(n // TILE, k // TILE, TILE, TILE).transpose(1, 2).reshape(n, k)
    tiers = tier_map(n, k).repeat_interleave(TILE, 0).repeat_interleave(TILE, 1)
    return torch.where(tiers == 0, True, torch.where(tiers == 1, pairs, largest))


def _maker(packed):
    def make(weight, mask):
        tiers = tier_map(*weight.shape)
        return [packed(TIERED, TieredLinear, weight, mask, by_rows=lambda rows: {"tiers": tiers[: -(-rows // TILE)]})]

    return make


def cases(request: Request):
    return linear_cases(OP, _maker(packed), request, mask_of=tier_mask)


def gpu_cases(request: Request):
    few = Request(request.shapes, tuple(m for m in request.tokens if m <= 64), request.quick)
    return gpu_linears.linear_cases(OP, _maker(gpu_linears.packed), few, mask_of=tier_mask)
