"""tiered_linear in Triton against the float64 reference, on the tier maps of the op's suite."""

import pytest
import torch

from bitmap_problems import FLOATS
from prism_kernels.formats import TieredWeight
from prism_kernels.reference.tiered import panel_offsets
from prism_kernels.testing import assert_matches
from prism_kernels.triton.tiered_linear import tiered_linear
from tiered_problems import tier_maps


def packed(weight, tiers):
    tiered = TieredWeight.pack(weight, tiers)
    return (tiered.tiers, tiered.masks, tiered.values, panel_offsets(tiered.tiers, tiered.masks)), tiered.to_dense()


def test_matches_float64(poison, generator):
    for i, (n, k) in enumerate([(1, 1), (3, 7), (16, 16), (17, 130), (50, 333)]):
        for j, tiers in enumerate(tier_maps(n, k, generator)):
            dtype, m = FLOATS[(i + j) % 3], (1, 3, 17)[j % 3]
            stored = dtype if j % 3 else torch.bfloat16
            weight, dense = packed(torch.randn(n, k, generator=generator).to(stored), tiers)
            x = torch.randn(m, k, generator=generator).to(dtype)
            bias = torch.randn(n, generator=generator).to(dtype) if j % 2 else None
            y = tiered_linear(x, *weight, bias, n)
            assert y.dtype == dtype
            assert_matches(y, x.double() @ dense.double().T + (0 if bias is None else bias.double()), k)


@pytest.mark.parametrize("m", [0, 20])
def test_parts_of_k(poison, generator, m):
    tiers = torch.randint(4, (5, 70), generator=generator, dtype=torch.uint8)
    weight, dense = packed(torch.randn(70, 1115, generator=generator).bfloat16(), tiers)
    x = torch.randn(m, 1115, generator=generator).bfloat16()
    assert_matches(tiered_linear(x, *weight, torch.ones(70).bfloat16(), 70), x.double() @ dense.double().T + 1, 1115)


def test_some_panels_and_no_columns(generator):
    tiers = torch.randint(4, (4, 9), generator=generator, dtype=torch.uint8)
    (tiers, masks, values, offsets), dense = packed(torch.randn(60, 140, generator=generator), tiers)
    x = torch.randn(2, 140, generator=generator)
    y = tiered_linear(x, tiers[1:3], masks, values, offsets[1:4], None, 32)
    assert_matches(y, x.double() @ dense[16:48].double().T, 140)
    (tiers, masks, values, offsets), _ = packed(torch.ones(3, 0), torch.zeros(1, 0, dtype=torch.uint8))
    y = tiered_linear(torch.ones(2, 0), tiers, masks, values, offsets, torch.ones(3), 3)
    assert y.tolist() == [[1.0] * 3] * 2
