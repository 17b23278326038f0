"""dual_shift_quantize in Triton: bit for bit the reference, ties included."""

import torch

from dual_shift_cases import GRIDS, make_column_scale, make_weight
from prism_kernels.reference.codebooks import levels
from prism_kernels.reference.dual_shift_quantize import dual_shift_quantize as reference
from prism_kernels.triton.dual_shift_quantize import dual_shift_quantize

SHAPES = [(1, 1), (3, 7), (5, 63), (4, 64), (17, 130), (0, 16), (3, 0), (9, 257)]
GROUP_SIZES = (64, 32, 8, 5, 1, 96, 4096)


def assert_same(weight, column_scale, mask, *grid):
    expected = reference(weight, column_scale, mask, *grid)
    actual = dual_shift_quantize(weight, column_scale, mask, *grid)
    for name, a, e in zip(("codes", "scale", "zero"), actual, expected, strict=True):
        assert a.dtype == e.dtype and torch.equal(a, e), (name, list(weight.shape), grid)


def test_matches_reference(poison, generator):
    for s, (n, k) in enumerate(SHAPES):
        for g, (bits, codebook) in enumerate(GRIDS):
            dtype = (torch.float32, torch.bfloat16, torch.float16)[g % 3]
            weight, mask = make_weight(n, k, generator, dtype)
            column_scale, group = make_column_scale(k, generator), GROUP_SIZES[(s + g) % len(GROUP_SIZES)]
            if k // group > 40 or (s + g) % 2:  # the interpreter runs a program per group
                continue
            assert_same(weight, column_scale, mask if g % 4 else None, bits, group, codebook)


def test_pruned_weights_are_not_looked_at():
    weight, mask = torch.tensor([[-1.0, 100.0, 2.0, float("nan")]]), torch.tensor([[True, False, True, False]])
    assert_same(weight, torch.ones(4).bfloat16(), mask, 2, 4, "uniform")


def test_extreme_scales(generator):
    """Empty, subnormal and overflowing groups."""
    weight = torch.randn(5, 64, generator=generator)
    weight *= torch.tensor([0.0, 1e-40, 1e-38, 3e38, 1.0])[:, None]
    weight.clamp_(-3.4e38, 3.4e38)
    for bits, codebook in ((4, "uniform"), (8, "uniform"), (4, "nf4")):
        assert_same(weight, torch.ones(64).bfloat16(), None, bits, 32, codebook)


def test_ties_match_reference(generator):
    halves = torch.randint(-16, 15, (8, 64), generator=generator).float() / 2
    halves[:, :2] = torch.tensor([-8.0, 7.0])
    for bits in (2, 4, 6):
        assert_same(halves, torch.ones(64).bfloat16(), None, bits, 64, "uniform")
    for bits, codebook in ((4, "nf4"), (3, "nf3")):
        table = levels(codebook)
        points = torch.cat([table, (table[:-1] + table[1:]) / 2])
        points = torch.cat([points, points.nextafter(points + 1), points.nextafter(points - 1)]).clamp(-1, 1)[None]
        assert_same(points, torch.ones(points.shape[1]).bfloat16(), None, bits, points.shape[1], codebook)
