"""bitmap_dual_shift_linear on the GPU against the float64 reference over the factors that the kernel multiplies."""

import pytest
import torch

from bitmap_problems import FLOATS, GRIDS, GROUPS, dual_shift, masks, mixed_mask
from prism_kernels import dispatch, ops
from prism_kernels.nn import BitmapDualShiftLinear
from prism_kernels.reference.activations import quantize_activations
from prism_kernels.testing import LINEAR_PROBLEMS, assert_matches

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]

FEW_GRIDS = [(4, "uniform"), (3, "uniform"), (8, "uniform"), (4, "nf4")]
TOKENS = (0, 1, 2, 3, 4, 7, 8, 9, 16, 17, 33, 64, 65, 130)


def exact(x, problem, activation_bits):
    """Tensor cores multiply 16-bit factors: x * column_scale and levels, rounded to the dtype of x."""
    k, group_size = x.shape[1], problem.grid["group_size"]
    if activation_bits is not None:
        quantized, scale = quantize_activations(x, problem.column_scale)
        return quantized.double() @ problem.unscaled.T * scale.double()
    if x.dtype == torch.float32 or (group_size < k and group_size % 32):
        return x.double() @ problem.exact.T
    weight = problem.unscaled
    if problem.grid["codebook"] != "uniform":
        weight = rounded_levels(problem, x.dtype)
    return (x.float() * problem.column_scale.float()).to(x.dtype).double() @ weight.T


def rounded_levels(problem, dtype):
    """The weight without column scales, its levels rounded to `dtype`."""
    n, k = problem.mask.shape
    rows = problem.scale.transpose(1, 2).reshape(-1, problem.scale.shape[1])[:n].double()
    scale = rows[:, torch.arange(k) // problem.grid["group_size"]]
    return (problem.unscaled / scale).to(dtype).double() * scale


def check(x, problem, generator, activation_bits=None, with_bias=True):
    n = problem.grid["n"]
    bias = torch.randn(n, generator=generator).to(x.dtype) if with_bias else None
    tensors = [t.cuda() for t in problem.tensors]
    on_device = None if bias is None else bias.cuda()
    options = {**problem.grid, "activation_bits": activation_bits}
    y = ops.bitmap_dual_shift_linear(x.cuda(), *tensors, on_device, **options)
    assert y.is_cuda
    assert y.dtype == x.dtype
    expected = exact(x, problem, activation_bits)
    assert_matches(y.cpu(), expected if bias is None else expected + bias.double(), x.shape[1])
    if bias is None:
        assert not y.cpu()[:, ~problem.mask.any(dim=1)].any()


def test_has_a_compiled_kernel():
    assert dispatch.has_compiled("bitmap_dual_shift_linear", "cuda")


def test_sanitized_odd_shape(generator):
    problem = dual_shift(mixed_mask(37, 1100, generator), 4, 64, "uniform", generator)
    for m in (3, 19):
        x = torch.randn(m, 1100, generator=generator).bfloat16()
        check(x, problem, generator)
        check(x, problem, generator, activation_bits=8)
    check(x.float(), problem, generator)
    check(x, dual_shift(mixed_mask(37, 1100, generator), 3, 32, "uniform", generator), generator)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_matches_float64(generator, dtype):
    for problem in LINEAR_PROBLEMS:
        x = torch.randn(problem.m, problem.k, generator=generator).to(dtype)
        x[1:2] = 0
        for i, (bits, codebook) in enumerate(GRIDS):
            weight = dual_shift(mixed_mask(problem.n, problem.k, generator), bits, 64, codebook, generator)
            check(x, weight, generator, with_bias=i % 2 == 0)
            if codebook == "uniform":
                check(x, weight, generator, activation_bits=8, with_bias=i % 2 == 0)


def test_every_group_size(generator):
    for m, n, k in ((1, 43, 224), (6, 35, 449)):
        x = torch.randn(m, k, generator=generator).bfloat16()
        for bits, codebook in FEW_GRIDS:
            for group_size in (*GROUPS, 96, 160):
                check(x, dual_shift(mixed_mask(n, k, generator), bits, group_size, codebook, generator), generator)


def test_every_number_of_tokens(generator):
    for dtype in (torch.bfloat16, torch.float16):
        weight = dual_shift(mixed_mask(300, 736, generator), 4, 64, "uniform", generator)
        for m in TOKENS:
            check(torch.randn(m, 736, generator=generator).to(dtype), weight, generator)


def test_every_mask(generator):
    for m in (1, 12, 40):
        for _, mask in masks(43, 330, generator):
            for bits, codebook in FEW_GRIDS:
                weight = dual_shift(mask, bits, 64, codebook, generator)
                check(torch.randn(m, 330, generator=generator).bfloat16(), weight, generator, with_bias=False)


@pytest.mark.parametrize("shape", [(4096, 4096), (1024, 14336)], ids=str)
@pytest.mark.parametrize("density", [0.0, 0.5, 1.0])
def test_large(shape, density, generator):
    weight = dual_shift(torch.rand(shape, generator=generator) < density, 4, 64, "uniform", generator)
    for m in (1, 16, 64):
        check(torch.randn(m, shape[1], generator=generator).bfloat16(), weight, generator)


def test_is_captured_and_compiled(generator):
    linear = torch.nn.Linear(512, 100, dtype=torch.bfloat16, device="cuda")
    module = BitmapDualShiftLinear.from_linear(linear, mixed_mask(100, 512, generator).cuda())
    for m, activation_bits in ((1, None), (1, 8), (16, None)):
        module.activation_bits = activation_bits
        x = torch.randn(m, 512, generator=generator).bfloat16().cuda()
        with torch.inference_mode():
            expected = module.fused(x)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                captured = module.fused(x)
            graph.replay()
            assert torch.equal(captured, expected)
            assert torch.equal(torch.compile(module.fused, fullgraph=True)(x), expected)
