"""low_rank_linear on the GPU against the float64 reference."""

import pytest
import torch

from bitmap_problems import FLOATS
from prism_kernels import dispatch, ops
from prism_kernels.formats import LowRankWeight
from prism_kernels.nn import LowRankLinear
from prism_kernels.testing import LINEAR_PROBLEMS, assert_matches

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]


def factors(n, k, rank, dtype, generator, b_dtype=None):
    a = torch.randn(rank, k, generator=generator) / max(k, 1) ** 0.5
    return a.to(dtype), torch.randn(n, rank, generator=generator).to(b_dtype or dtype)


def check(x, a, b, bias=None):
    y = ops.low_rank_linear(x.cuda(), a.cuda(), b.cuda(), None if bias is None else bias.cuda())
    assert y.is_cuda and y.dtype == x.dtype
    expected = x.double() @ a.double().T @ b.double().T
    assert_matches(y.cpu(), expected if bias is None else expected + bias.double(), x.shape[-1] + a.shape[0])


def test_has_a_compiled_kernel():
    assert dispatch.has_compiled("low_rank_linear", "cuda")


def test_sanitized_odd_shape(generator):
    a, b = factors(17, 65, 7, torch.bfloat16, generator)
    for m in (1, 9):
        check(torch.randn(m, 65, generator=generator).bfloat16(), a, b)


@pytest.mark.parametrize("x_dtype", FLOATS, ids=str)
def test_matches_float64(poison, generator, x_dtype):
    for problem in LINEAR_PROBLEMS:
        for rank in (1, 7, 40):
            x = torch.rand(problem.m, problem.k, generator=generator).to(x_dtype)
            for dtype, b_dtype in zip(FLOATS, (FLOATS[0], *FLOATS[:0:-1]), strict=True):
                a, b = factors(problem.n, problem.k, rank, dtype, generator, b_dtype)
                check(x, a.abs(), b)  # nothing cancels in the hidden vector, whose error the tolerance does not know


def test_every_number_of_tokens_and_the_same_bits_in_each(poison, generator):
    a, b = factors(33, 4104, 72, torch.bfloat16, generator)
    bias = torch.ones(33)
    x = torch.randn(130, 4104, generator=generator)
    packed = tuple(t.cuda() for t in (a, b, bias))
    whole = ops.low_rank_linear(x.cuda(), *packed)
    for m in (0, *range(1, 12), 64, 130):
        check(x[:m], a, b, bias)
        assert torch.equal(ops.low_rank_linear(x[:m].cuda(), *packed), whole[:m])


def test_rank_zero_and_no_columns():
    for k, rank in ((5, 0), (0, 3)):
        ones = [torch.ones(shape).cuda() for shape in ((2, k), (rank, k), (4, rank), (4,))]
        assert ops.low_rank_linear(*ones).tolist() == [[1.0] * 4] * 2


def test_views_that_are_not_aligned(generator):
    a, b = factors(20, 64, 8, torch.bfloat16, generator)
    x = torch.randn(3, 64, generator=generator).bfloat16()
    shifted = [torch.cat([t.new_zeros(1), t.flatten()]).cuda()[1:].view(t.shape) for t in (x, a, b)]
    assert torch.equal(ops.low_rank_linear(*shifted).cpu(), ops.low_rank_linear(x.cuda(), a.cuda(), b.cuda()).cpu())


def test_module_takes_dense_products_from_the_crossover_on(generator):
    a, b = factors(40, 264, 16, torch.bfloat16, generator)
    module = LowRankLinear(LowRankWeight(a, b)).cuda()
    for m in (1, dispatch.crossover("low_rank_linear", "cuda") + 1):
        x = torch.randn(m, 264, generator=generator).bfloat16()
        y = module(x.cuda()).cpu().double()
        torch.testing.assert_close(y, x.double() @ a.double().T @ b.double().T, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("m", [1, 5])
def test_is_captured_and_compiled(generator, m):
    a, b = (t.cuda() for t in factors(67, 136, 16, torch.bfloat16, generator))
    x = torch.randn(m, 136, generator=generator).bfloat16().cuda()
    expected = ops.low_rank_linear(x, a, b)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.low_rank_linear(x, a, b)
    graph.replay()
    assert torch.equal(captured, expected)
    assert torch.equal(torch.compile(ops.low_rank_linear, fullgraph=True)(x, a, b), expected)
