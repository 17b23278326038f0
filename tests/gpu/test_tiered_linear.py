"""tiered_linear and tiered_unpack on the GPU against the float64 reference and the CPU."""

import pytest
import torch

from bitmap_problems import FLOATS
from prism_kernels import dispatch, ops
from prism_kernels.formats import TieredWeight
from prism_kernels.testing import LINEAR_PROBLEMS, assert_matches
from tiered_problems import tier_maps, tiered

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]


def arguments(packed):
    return tuple(t.cuda() for t in (packed.tiers, packed.masks, packed.values, packed.panel_offsets()))


def check(x, packed, bias=None):
    y = ops.tiered_linear(x.cuda(), *arguments(packed), None if bias is None else bias.cuda(), n=packed.shape[0])
    assert y.is_cuda and y.dtype == x.dtype
    expected = x.double() @ packed.to_dense().double().T
    assert_matches(y.cpu(), expected if bias is None else expected + bias.double(), x.shape[-1])


def check_unpacked(packed):
    assert torch.equal(ops.tiered_unpack(*arguments(packed), *packed.shape).cpu(), packed.to_dense())


def test_have_compiled_kernels():
    assert dispatch.has_compiled("tiered_linear", "cuda") and dispatch.has_compiled("tiered_unpack", "cuda")


def test_sanitized_odd_shape(generator):
    for dtype in (torch.bfloat16, torch.float32):
        packed = tiered(17, 65, dtype, generator)
        check_unpacked(packed)
        for m in (1, 9):
            check(torch.randn(m, 65, generator=generator).to(dtype), packed)


@pytest.mark.parametrize("x_dtype", FLOATS, ids=str)
def test_matches_float64(poison, generator, x_dtype):
    for problem in LINEAR_PROBLEMS:
        x = torch.randn(problem.m, problem.k, generator=generator).to(x_dtype)
        bias = torch.ones(problem.n, dtype=x_dtype)
        for dtype in FLOATS:
            packed = tiered(problem.n, problem.k, dtype, generator)
            check_unpacked(packed)
            check(x, packed)
            if problem.k > 16:
                check(x, packed, bias)


def test_every_map(poison, generator):
    for m, n, k in ((1, 43, 200), (3, 38, 129), (13, 50, 320), (1, 20, 20_000)):
        for dtype in (torch.bfloat16, torch.float32):
            x = torch.randn(m, k, generator=generator).to(dtype)
            weight = torch.randn(n, k, generator=generator).to(dtype)
            for tiers in tier_maps(n, k, generator):
                packed = TieredWeight.pack(weight, tiers)
                check_unpacked(packed)
                check(x, packed)


def test_every_number_of_tokens(poison, generator):
    packed = tiered(49, 530, torch.bfloat16, generator)
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(70, 530, generator=generator).to(dtype)
        for m in (*range(1, 27), 41, 64, 70):
            check(x[:m], packed)


def test_some_panels(generator):
    packed = tiered(70, 50, torch.float32, generator)
    tiers, masks, values, offsets = arguments(packed)
    part = ops.tiered_unpack(tiers[1:4], masks, values, offsets[1:5], 48, 50)
    assert torch.equal(part.cpu(), packed.to_dense()[16:64])


def test_no_rows_and_no_columns():
    packed = TieredWeight.pack(torch.ones(0, 5))
    assert ops.tiered_linear(torch.ones(2, 5).cuda(), *arguments(packed), n=0).shape == (2, 0)
    packed = TieredWeight.pack(torch.ones(3, 0))
    y = ops.tiered_linear(torch.ones(2, 0).cuda(), *arguments(packed), torch.ones(3).cuda(), n=3)
    assert y.tolist() == [[1.0] * 3] * 2


def test_a_map_that_promises_more_than_is_stored_reads_nothing_else():
    tiers, masks = torch.zeros(2, 3, dtype=torch.uint8), torch.full((1, 32), 255, dtype=torch.uint8)
    tiers[0, 1:] = 2
    offsets = torch.zeros(3, 2, dtype=torch.int64)
    for dtype in (torch.float32, torch.bfloat16):
        tensors = (t.cuda() for t in (tiers, masks, torch.ones(9).to(dtype), offsets))
        y = ops.tiered_linear(torch.ones(1, 48).to(dtype).cuda(), *tensors, n=32)
        assert float(y.float().sum()) == 18.0  # both panels see the same nine ones, all else counts as 0


def test_two_runs_give_the_same_bits(generator):
    packed = tiered(301, 1320, torch.bfloat16, generator)
    weight = arguments(packed)
    for m in (1, 12):
        x = torch.randn(m, 1320, generator=generator).bfloat16().cuda()
        assert torch.equal(ops.tiered_linear(x, *weight, n=301), ops.tiered_linear(x, *weight, n=301))


@pytest.mark.parametrize("m", [1, 12])
def test_is_captured_and_compiled(generator, m):
    weight = arguments(tiered(67, 129, torch.bfloat16, generator))
    x = torch.randn(m, 129, generator=generator).bfloat16().cuda()
    expected = ops.tiered_linear(x, *weight, n=67)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.tiered_linear(x, *weight, n=67)
    graph.replay()
    assert torch.equal(captured, expected)
    compiled = torch.compile(lambda x, *w: ops.tiered_linear(x, *w, n=67), fullgraph=True)
    assert torch.equal(compiled(x, *weight), expected)
