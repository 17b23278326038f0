"""tiered_unpack in Triton: the reference's weights, whole and in part."""

import torch

from bitmap_problems import FLOATS
from prism_kernels.formats import TieredWeight
from prism_kernels.reference.tiered import panel_offsets
from prism_kernels.reference.tiered_unpack import tiered_unpack as reference
from prism_kernels.triton.tiered_unpack import tiered_unpack
from tiered_problems import tier_maps


def test_matches_reference(poison, generator):
    for i, (n, k) in enumerate([(1, 1), (3, 7), (16, 16), (17, 130), (0, 16), (3, 0), (50, 333)]):
        for tiers in tier_maps(n, k, generator):
            weight = TieredWeight.pack(torch.randn(n, k, generator=generator).to(FLOATS[i % 3]), tiers)
            stored = weight.tiers, weight.masks, weight.values
            offsets = panel_offsets(weight.tiers, weight.masks)
            assert torch.equal(tiered_unpack(*stored, offsets, n, k), reference(*stored, offsets, n, k)), (n, k)


def test_some_panels_of_a_weight(generator):
    tiers = torch.randint(4, (4, 9), generator=generator, dtype=torch.uint8)
    weight = TieredWeight.pack(torch.randn(60, 140, generator=generator), tiers)
    offsets = panel_offsets(weight.tiers, weight.masks)[1:4]
    part = tiered_unpack(weight.tiers[1:3], weight.masks, weight.values, offsets, 32, 140)
    assert torch.equal(part, weight.to_dense()[16:48])
