"""obs_sweep in Triton: all six outputs bit for bit the reference."""

import itertools

import torch

from prism_kernels.reference.obs_sweep import obs_sweep as reference
from prism_kernels.triton.obs_sweep import obs_sweep

SHAPES = [(1, 1), (3, 7), (2, 31), (0, 16), (3, 0), (17, 21)]
NAMES = ("compensated", "error", "mask", "codes", "scale", "zero")


def problem(n, b, generator):
    """Weights, half of them with ties, and the upper Cholesky factor of the inverse of a damped Hessian."""
    inputs = torch.randn(2 * b + 3, b, generator=generator, dtype=torch.float64)
    hessian = inputs.T @ inputs / len(inputs) + 0.01 * torch.eye(b, dtype=torch.float64)
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True).contiguous().float()
    weight = torch.randn(n, b, generator=generator)
    weight[: n // 2] = weight[: n // 2].round()
    return weight, factor


def assert_same(*arguments):
    expected = reference(*arguments)
    for name, a, e in zip(NAMES, obs_sweep(*arguments), expected, strict=True):
        shapes = [list(x.shape) if isinstance(x, torch.Tensor) else x for x in arguments]
        assert a.dtype == e.dtype and torch.equal(a, e), (name, shapes)
    return expected


def test_fixed_mask_and_no_mask(poison, generator):
    for n, b in SHAPES:
        weight, factor = problem(n, b, generator)
        assert_same(weight, factor, torch.rand(n, b, generator=generator) < 0.5, 0, 0, None, None, None, 0, 0)
        assert_same(weight, factor, None, 0, 0, None, None, None, 0, 0)


def test_adaptive_masks(poison, generator):
    choices = itertools.cycle([(2, 4), (1, 4), (3, 5), (16, 32), (0, 4), (1, 1), (7, 300)])
    for n, b in SHAPES:
        weight, factor = problem(n, b, generator)
        for n_keep, m in itertools.islice(choices, 1 + (b > 20)):
            assert_same(weight, factor, None, n_keep, m, None, None, None, 0, 0)


def test_rounding(poison, generator):
    """Grids found in the sweep, then the same grids given for other weights."""
    choices = itertools.cycle([("fixed", 0, 0), (None, 0, 0), (None, 2, 4), (None, 3, 5)])
    grids = itertools.cycle([(4, 64), (3, 16), (2, 5), (5, 1), (6, 33), (8, 512)])
    for i, (n, b) in enumerate(SHAPES):
        weight, factor = problem(n, b, generator)
        mask = torch.rand(n, b, generator=generator) < 0.5
        mask[: n // 3, : b // 2] = False  # empty groups
        column = (1 + torch.rand(b, generator=generator)).bfloat16() if i % 3 else None
        kind, n_keep, m = next(choices)
        arguments = (factor, mask if kind else None, n_keep, m, column)
        bits, group_size = next(grids)
        found = assert_same(weight, *arguments, None, None, bits, group_size)
        assert_same(weight.flip(0), *arguments, *found[4:], bits, group_size)
