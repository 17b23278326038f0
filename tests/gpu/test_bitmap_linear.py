"""bitmap_linear on the GPU against the float64 reference."""

import pytest
import torch

from bitmap_problems import FLOATS, masks, mixed_mask
from prism_kernels import dispatch, ops
from prism_kernels.nn import BitmapLinear
from prism_kernels.testing import LINEAR_PROBLEMS, assert_matches

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]

#: Both sides of every number of tokens that a kernel takes at once.
TOKENS = (0, 1, 2, 7, 8, 9, 16, 17, 33, 64, 65, 130)


def check(m, n, k, mask, dtype, values_dtype, generator, with_bias=True):
    weight = torch.randn(n, k, generator=generator).to(values_dtype)
    x = torch.randn(m, k, generator=generator).to(dtype)
    bias = torch.randn(n, generator=generator).to(dtype) if with_bias else None
    packed = [t.cuda() for t in ops.bitmap_pack(weight, mask)]
    y = ops.bitmap_linear(x.cuda(), *packed, None if bias is None else bias.cuda(), n=n)
    assert y.is_cuda
    assert y.dtype == dtype
    expected = x.double() @ torch.where(mask, weight, 0).double().T
    assert_matches(y.cpu(), expected if bias is None else expected + bias.double(), k)


def test_has_a_compiled_kernel():
    assert dispatch.has_compiled("bitmap_linear", "cuda")


def test_sanitized_odd_shape(generator):
    check(3, 37, 203, mixed_mask(37, 203, generator), torch.bfloat16, torch.bfloat16, generator)
    check(19, 37, 1100, mixed_mask(37, 1100, generator), torch.float16, torch.float16, generator)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_matches_float64(generator, dtype):
    for i, problem in enumerate(LINEAR_PROBLEMS):
        for values_dtype in FLOATS:
            mask = mixed_mask(problem.n, problem.k, generator)
            check(problem.m, problem.n, problem.k, mask, dtype, values_dtype, generator, with_bias=i % 2 == 0)


def test_every_number_of_tokens(generator):
    for dtype in (torch.bfloat16, torch.float32):
        for m in TOKENS:
            check(m, 300, 736, mixed_mask(300, 736, generator), dtype, dtype, generator)


def test_every_mask(generator):
    for m in (1, 12, 40):
        for _, mask in masks(43, 330, generator):
            check(m, 43, 330, mask, torch.bfloat16, torch.bfloat16, generator)


@pytest.mark.parametrize("shape", [(4096, 4096), (1024, 14336)], ids=str)
@pytest.mark.parametrize("density", [0.0, 0.5, 1.0])
def test_large(shape, density, generator):
    mask = torch.rand(shape, generator=generator) < density
    for m in (1, 16, 64):
        check(m, *shape, mask, torch.bfloat16, torch.bfloat16, generator)


def test_is_deterministic(generator):
    packed = ops.bitmap_pack(torch.randn(80, 4096, generator=generator).bfloat16().cuda())
    for m in (1, 16, 64):
        x = torch.randn(m, 4096, generator=generator).bfloat16().cuda()
        first = ops.bitmap_linear(x, *packed, n=80)
        assert all(torch.equal(ops.bitmap_linear(x, *packed, n=80), first) for _ in range(5))


def test_is_captured_and_compiled(generator):
    linear = torch.nn.Linear(512, 100, dtype=torch.bfloat16, device="cuda")
    module = BitmapLinear.from_linear(linear, mixed_mask(100, 512, generator).cuda())
    for m in (1, 16):
        x = torch.randn(m, 512, generator=generator).bfloat16().cuda()
        with torch.inference_mode():
            expected = module.fused(x)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                captured = module.fused(x)
            graph.replay()
            assert torch.equal(captured, expected)
            assert torch.equal(torch.compile(module.fused, fullgraph=True)(x), expected)
