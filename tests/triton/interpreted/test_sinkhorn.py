"""sinkhorn in Triton against the float64 reference, as the op's own suite does it."""

import pytest
import torch

from prism_kernels.reference.sinkhorn import sinkhorn as reference
from prism_kernels.reference.sinkhorn_statistics import live, std
from prism_kernels.triton.sinkhorn import sinkhorn

VARIANTS = ("sinq", "prism", "rms")
SHAPES = [(1, 1, 1), (2, 3, 7), (1, 5, 63), (2, 64, 64), (1, 17, 130), (0, 4, 4), (1, 0, 16), (2, 3, 0), (1, 9, 1009),
          (1, 300, 33), (3, 129, 64)]  # fmt: skip


def problem(shape, generator, density=None):
    """Heavy-tailed weights whose rows and columns have spreads of their own; a mask of some density, or None."""
    b, n, k = shape
    columns = torch.randn(b, 1, k, generator=generator).exp()
    rows = (0.5 * torch.randn(b, n, 1, generator=generator)).exp()
    weight = 0.02 * torch.randn(shape, generator=generator) * columns * rows + 0.002
    mask = None if density is None else torch.rand(shape, generator=generator) < density
    return weight, mask


def imbalance(weight, mask, column, row):
    """Largest over smallest spread of the scaled matrix, in float64."""
    weight = weight.double()
    mask = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask
    scaled = weight / column.double() / row.double()[:, None]
    spread = torch.cat([std(scaled, mask, dim, 1)[live(weight, mask, dim)] for dim in (0, 1)])
    return float(spread.max() / spread.min())


def assert_close(weight, mask, variant, iterations, limit=1e-4):
    """Factors within `limit`; where two iterates of "sinq" are equally balanced, rounding may choose the other one."""
    actual, expected = (
        sinkhorn(weight, mask, variant, iterations),
        reference(weight.double(), mask, variant, iterations),
    )
    for i in range(len(weight)):
        gap = max([float((a[i].double() / e[i]).log().abs().max()) for a, e in zip(actual, expected, strict=True)
                   if a[i].numel()], default=0.0)  # fmt: skip
        if gap > limit and variant == "sinq":
            kept = None if mask is None else mask[i]
            found, wanted = (imbalance(weight[i], kept, f[0][i], f[1][i]) for f in (actual, expected))
            assert found <= wanted * (1 + 1e-4), (weight.shape, gap, found, wanted)
        else:
            assert gap <= limit, (weight.shape, variant, iterations, gap)
    assert all(a.dtype == torch.float32 and a.shape == e.shape for a, e in zip(actual, expected, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_matches_reference(poison, generator, variant):
    for i, shape in enumerate(SHAPES[:-2]):  # the slow test has the others
        weight, mask = problem(shape, generator, (None, 0.5, 0.1)[i % 3])
        assert_close(weight, mask, variant, (16, 0, 1, 2)[i % 4] if i < 4 else 1 + i % 3)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_all_masks_and_iterations_match_reference(poison, generator, variant):
    for shape in SHAPES:
        for density in (None, 0.5, 0.1):
            for iterations in (1, 2, 16):
                assert_close(*problem(shape, generator, density), variant, iterations)


@pytest.mark.parametrize("variant", VARIANTS)
def test_pruned_weights_are_not_looked_at(generator, variant):
    weight, mask = problem((1, 20, 40), generator, 0.5)
    mask[:, 3] = mask[:, :, 5] = False
    clean = sinkhorn(weight, mask, variant, 4)
    dirty = sinkhorn(torch.where(mask, weight, torch.nan), mask, variant, 4)
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))
    assert clean[1][0, 3] == 1 and clean[0][0, 5] == 1


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_stay_in_range(generator, scale):
    weight, _ = problem((1, 12, 33), generator)
    assert_close(weight * scale, None, "sinq", 3)
    assert_close(weight * scale, None, "rms", 0)


def test_lines_of_equal_entries_keep_1():
    weight = torch.tensor([[[1.0, -1.0, 0.3], [-3.0, 3.0, 0.3], [0.1, 0.1, 0.1]]])
    assert sinkhorn(weight, None, "sinq", 3)[1][0, 2] == 1
    assert sinkhorn(weight[:, :2].contiguous(), None, "sinq", 3)[0][0, 2] == 1


def test_half_weights(generator):
    weight, mask = problem((2, 18, 40), generator, 0.5)
    for dtype in (torch.bfloat16, torch.float16):
        assert_close(weight.to(dtype), mask, "prism", 2)
