"""csr_linear in Triton against the float64 reference."""

import torch

from bitmap_problems import FLOATS, mixed_mask
from prism_kernels.formats import CsrWeight
from prism_kernels.testing import LINEAR_PROBLEMS, assert_matches
from prism_kernels.triton.csr_linear import csr_linear


def test_matches_float64(poison, generator):
    for i, problem in enumerate(p for p in LINEAR_PROBLEMS if p.m * p.n < 200):  # a program per row
        weight = torch.randn(problem.n, problem.k, generator=generator).to(FLOATS[i % 3])
        packed = CsrWeight.pack(weight, mixed_mask(problem.n, problem.k, generator))
        wide = packed.columns.int() & 0xFFFF, packed.row_offsets.long()
        for dtype in (FLOATS[(i + 1) % 3], FLOATS[(i + 2) % 3])[: 1 + (problem.n < 30)]:
            x = torch.randn(problem.m, problem.k, generator=generator).to(dtype)
            bias = torch.randn(problem.n, generator=generator).to(dtype) if i % 2 else None
            exact = x.double() @ packed.to_dense().double().T + (0 if bias is None else bias.double())
            y = csr_linear(x, packed.values, packed.columns, packed.row_offsets, bias)
            assert y.dtype == dtype
            assert_matches(y, exact, problem.k)
        assert_matches(csr_linear(x, packed.values, *wide, bias), exact, problem.k)


def test_tokens_of_many_groups(poison, generator):
    weight = torch.randn(5, 70, generator=generator).bfloat16()
    packed = CsrWeight.pack(weight, mixed_mask(5, 70, generator))
    x = torch.randn(35, 70, generator=generator).bfloat16()
    for m in (0, 2, 5, 16, 17, 35):
        y = csr_linear(x[:m], packed.values, packed.columns, packed.row_offsets, torch.ones(5).bfloat16())
        assert_matches(y, x[:m].double() @ packed.to_dense().double().T + 1, 70)


def test_columns_beyond_15_bits():
    for k in (40_000, 65_536):
        columns = torch.tensor([0, 32_767, 32_768, k - 1]).int().short()
        packed = torch.tensor([1.0, 2.0, 3.0, 4.0]), columns, torch.tensor([0, 1, 4]).int()
        x = torch.zeros(1, k)
        x[0, [0, 32_767, 32_768, k - 1]] = torch.tensor([1.0, 10.0, 100.0, 1000.0])
        assert csr_linear(x, *packed).tolist() == [[1.0, 4320.0]]
