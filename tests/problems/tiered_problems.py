"""Weights in tiles that the tests of the tiered op, format and module share."""

from collections.abc import Iterator

import torch

from prism_kernels.formats import TieredWeight


def tier_map(n: int, k: int, generator: torch.Generator) -> torch.Tensor:
    """A random tier for every tile, uint8 [ceil(n / 16), ceil(k / 16)]."""
    return torch.randint(4, (-(-n // 16), -(-k // 16)), generator=generator, dtype=torch.uint8)


def tiered(n: int, k: int, dtype: torch.dtype, generator: torch.Generator) -> TieredWeight:
    weight = torch.randn(n, k, generator=generator).to(dtype)
    return TieredWeight.pack(weight, tier_map(n, k, generator))


def tier_maps(n: int, k: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """One tier everywhere, each in turn, then a mixture."""
    for tier in range(4):
        yield torch.full((-(-n // 16), -(-k // 16)), tier, dtype=torch.uint8)
    yield tier_map(n, k, generator)


def brute_force(weight: torch.Tensor, tiers: torch.Tensor, top_k: int) -> torch.Tensor:
    """What TieredWeight.pack must keep, by sorting every quad and tile: bool [n, k]."""
    n, k = weight.shape
    kept = torch.zeros(n, k, dtype=torch.bool)
    for panel in range(tiers.shape[0]):
        for tile in range(tiers.shape[1]):
            rows = range(16 * panel, min(16 * panel + 16, n))
            columns = range(16 * tile, min(16 * tile + 16, k))
            code = int(tiers[panel, tile])
            places = [(r, c) for r in rows for c in columns]

            def order(place):  # larger magnitudes first, then higher indices
                return -abs(float(weight[place])), -place[0], -place[1]

            if code == 0:
                chosen = places
            elif code == 1:
                quads = [[(r, c) for c in columns if c // 4 == q] for r in rows for q in {c // 4 for c in columns}]
                chosen = [place for quad in quads for place in sorted(quad, key=order)[:2]]
            else:
                chosen = sorted(places, key=order)[:top_k] if code == 2 else []
            for place in chosen:
                kept[place] = True
    return kept
