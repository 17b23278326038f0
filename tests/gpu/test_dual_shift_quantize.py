"""dual_shift_quantize on the device against the reference on the CPU, bit for bit."""

import pytest
import torch

from dual_shift_cases import GRIDS, all_grids, make_column_scale, make_weight
from prism_kernels import dispatch, ops
from prism_kernels.reference.codebooks import levels
from prism_kernels.reference.dual_shift_quantize import dual_shift_quantize as reference

pytestmark = pytest.mark.gpu

SHAPES = [(1, 1), (3, 7), (5, 63), (4, 64), (17, 130), (0, 16), (3, 0), (9, 257)]


def check(weight, column_scale, mask, bits, group_size, codebook, device):
    actual = ops.dual_shift_quantize(
        weight.to(device), column_scale.to(device), None if mask is None else mask.to(device),
        bits=bits, group_size=group_size, codebook=codebook,
    )  # fmt: skip
    expected = reference(weight, column_scale, mask, bits, group_size, codebook)
    for name, a, e in zip(("codes", "scale", "zero"), actual, expected, strict=True):
        case = (name, *weight.shape, bits, codebook, group_size, mask is None)
        assert a.dtype == e.dtype and torch.equal(a.cpu(), e), case


def test_has_a_compiled_kernel():
    assert dispatch.has_compiled("dual_shift_quantize", "cuda")


def test_sanitized_odd_shape(generator, device):
    weight, mask = make_weight(5, 203, generator)
    check(weight, make_column_scale(203, generator), mask, 3, 48, "uniform", device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_matches_reference(poison, generator, device, dtype):
    for n, k in SHAPES:
        for bits, codebook, group_size in all_grids((64, 32, 8, 5, 1, 96, 4096)):
            weight, mask = make_weight(n, k, generator, dtype)
            for kept in (None, mask):
                check(weight, make_column_scale(k, generator), kept, bits, group_size, codebook, device)


def test_ties_match_reference(generator, device):
    halves = torch.randint(-16, 15, (8, 64), generator=generator).float() / 2
    halves[:, :2] = torch.tensor([-8.0, 7.0])
    for bits in (2, 3, 4, 5, 6, 8):
        check(halves, torch.ones(64, dtype=torch.bfloat16), None, bits, 64, "uniform", device)
    for bits, codebook in ((4, "nf4"), (3, "nf3")):
        table = levels(codebook)
        points = torch.cat([table, (table[:-1] + table[1:]) / 2])[None]
        check(points, torch.ones(points.shape[1], dtype=torch.bfloat16), None, bits, points.shape[1], codebook, device)


def test_extreme_magnitudes_match_reference(device):
    rows = [[3e38, -3e38, 1.0, 0.0], [1e-45, 0.0, -1e-44, 0.0], [0.0] * 4, [1e-39, 2e-38, -1e-38, 0.0], [-3.4e38] * 4]
    column_scale = torch.tensor([0.5, 1.0, 2.0, 1.0], dtype=torch.bfloat16)
    for bits, codebook in GRIDS:
        check(torch.tensor(rows), column_scale, None, bits, 4, codebook, device)


def test_compiles_to_one_graph(generator, device):
    weight, column_scale = torch.randn(5, 65, generator=generator), make_column_scale(65, generator)

    def quantize(w, c):
        return ops.dual_shift_quantize(w, c, bits=3, group_size=32)

    actual = torch.compile(quantize, fullgraph=True)(weight.to(device), column_scale.to(device))
    expected = reference(weight, column_scale, None, 3, 32, "uniform")
    assert all(torch.equal(a.cpu(), e) for a, e in zip(actual, expected, strict=True))
