"""csr_linear and csr_unpack on the GPU against the float64 reference and the CPU."""

import pytest
import torch

from bitmap_problems import FLOATS, mixed_mask
from prism_kernels import dispatch, ops
from prism_kernels.formats import CsrWeight
from prism_kernels.testing import LINEAR_PROBLEMS, assert_matches

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]


def pruned(n, k, dtype, generator, *, wide=False):
    """The dense weight on the CPU, the packed one on the device."""
    weight = torch.randn(n, k, generator=generator).to(dtype)
    packed = CsrWeight.pack(weight, mixed_mask(n, k, generator))
    columns = packed.columns.int() & 0xFFFF if wide else packed.columns
    offsets = packed.row_offsets.long() if wide else packed.row_offsets
    return packed.to_dense(), tuple(t.cuda() for t in (packed.values, columns, offsets))


def check(x, weight, packed, bias=None):
    y = ops.csr_linear(x.cuda(), *packed, None if bias is None else bias.cuda())
    assert y.is_cuda and y.dtype == x.dtype
    expected = x.double() @ weight.double().T
    assert_matches(y.cpu(), expected if bias is None else expected + bias.double(), x.shape[-1])


def test_have_compiled_kernels():
    assert dispatch.has_compiled("csr_linear", "cuda") and dispatch.has_compiled("csr_unpack", "cuda")


def test_sanitized_odd_shape(generator):
    weight, packed = pruned(17, 65, torch.bfloat16, generator)
    for m in (1, 9):
        check(torch.randn(m, 65, generator=generator).bfloat16(), weight, packed)
    assert torch.equal(ops.csr_unpack(*packed, 65).cpu(), weight)


@pytest.mark.parametrize("x_dtype", FLOATS, ids=str)
def test_matches_float64(poison, generator, x_dtype):
    for problem in LINEAR_PROBLEMS:
        x = torch.randn(problem.m, problem.k, generator=generator).to(x_dtype)
        bias = torch.ones(problem.n, dtype=x_dtype)
        for dtype in FLOATS:
            for wide in (False, True):
                weight, packed = pruned(problem.n, problem.k, dtype, generator, wide=wide)
                check(x, weight, packed)
                if problem.k > 16:
                    check(x, weight, packed, bias)
                assert torch.equal(ops.csr_unpack(*packed, problem.k).cpu(), weight)


def test_every_number_of_tokens(poison, generator):
    weight, packed = pruned(33, 200, torch.bfloat16, generator)
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(130, 200, generator=generator).to(dtype)
        for m in (*range(1, 20), 31, 32, 33, 64, 65, 130):
            check(x[:m], weight, packed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_tiles_of_uneven_rows(poison, generator, dtype):
    """Empty rows, whole ones and those between, under chunks of every width and up to four tiles of tokens; few tokens
    of many rows take tiles of 32 rows, of few rows tiles of 16."""
    shapes = ((70, 3000, 0.5), (9601, 139, 0.4), (33, 2051, 0.03), (100, 700, 0.95), (1, 129, 1.0), (40, 33, 0.0))
    for n, k, kept in shapes:
        mask = torch.rand(n, k, generator=generator) < kept
        mask[-1], mask[0] = True, kept == 1.0
        dense = torch.randn(n, k, generator=generator).to(dtype) * mask
        packed = CsrWeight.pack(dense, mask)
        on_device = tuple(t.cuda() for t in (packed.values, packed.columns, packed.row_offsets))
        for m in (2, 3, 17, 70, 200):
            x = torch.randn(m, k, generator=generator).to(dtype)
            check(x, dense, on_device, torch.ones(n, dtype=dtype) if m == 17 else None)


def test_tiles_of_long_rows(generator):
    """More than 65536 columns: int32."""
    weight, packed = pruned(33, 70_001, torch.bfloat16, generator)
    assert packed[1].dtype == torch.int32
    for m in (1, 3, 20):
        check(torch.randn(m, 70_001, generator=generator).bfloat16(), weight, packed)


def test_columns_beyond_15_bits(generator):
    for k in (40_000, 65_536, 70_000):
        columns = torch.tensor([0, 32_767, 32_768, k - 1])
        columns = columns.int() if k > 65_536 else columns.int().short()
        packed = tuple(t.cuda() for t in (torch.tensor([1.0, 2.0, 3.0, 4.0]), columns, torch.tensor([0, 1, 4]).int()))
        for m in (1, 3):
            x = torch.randn(m, k, generator=generator)
            y = 2 * x[:, 32_767] + 3 * x[:, 32_768] + 4 * x[:, k - 1]
            assert_matches(ops.csr_linear(x.cuda(), *packed).cpu(), torch.stack([x[:, 0], y], 1).double(), 3)
        assert ops.csr_unpack(*packed, k)[1].nonzero().flatten().tolist() == [32_767, 32_768, k - 1]


def test_an_infinite_activation_reaches_only_rows_that_read_it():
    packed = torch.ones(3).cuda(), torch.tensor([1, 2, 0]).short().cuda(), torch.tensor([0, 2, 3]).int().cuda()
    for m in (1, 2):
        x = torch.tensor([[torch.inf, 1.0, 1.0]]).repeat(m, 1).cuda()
        assert ops.csr_linear(x, *packed).tolist() == [[2.0, torch.inf]] * m


def test_no_rows_and_no_columns():
    nothing = torch.ones(0).cuda(), torch.ones(0).short().cuda()
    for m in (1, 2):
        assert ops.csr_linear(torch.ones(m, 5).cuda(), *nothing, torch.zeros(1).int().cuda()).shape == (m, 0)
        y = ops.csr_linear(torch.ones(m, 0).cuda(), *nothing, torch.zeros(3).int().cuda(), torch.ones(2).cuda())
        assert y.tolist() == [[1.0, 1.0]] * m


def test_two_runs_give_the_same_bits(generator):
    _, packed = pruned(301, 1320, torch.bfloat16, generator)
    for dtype in (torch.float32, torch.bfloat16):
        for m in (1, 3, 40):
            x = torch.randn(m, 1320, generator=generator).to(dtype).cuda()
            assert torch.equal(ops.csr_linear(x, *packed), ops.csr_linear(x, *packed))


@pytest.mark.parametrize("m", [1, 5])
def test_is_captured_and_compiled(generator, m):
    _, packed = pruned(67, 129, torch.bfloat16, generator)
    x = torch.randn(m, 129, generator=generator).bfloat16().cuda()
    expected = ops.csr_linear(x, *packed)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.csr_linear(x, *packed)
    graph.replay()
    assert torch.equal(captured, expected)
    assert torch.equal(torch.compile(ops.csr_linear, fullgraph=True)(x, *packed), expected)
