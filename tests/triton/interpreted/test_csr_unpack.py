"""csr_unpack in Triton: the reference's weights, whole and in part."""

import torch

from bitmap_problems import FLOATS, mixed_mask
from prism_kernels.formats import CsrWeight
from prism_kernels.triton.csr_unpack import csr_unpack


def test_matches_reference(poison, generator):
    for i, (n, k) in enumerate([(1, 1), (3, 7), (17, 130), (0, 16), (3, 0), (5, 2500)]):
        weight = CsrWeight.pack(torch.randn(n, k, generator=generator).to(FLOATS[i % 3]), mixed_mask(n, k, generator))
        for columns, offsets in (
            (weight.columns, weight.row_offsets),
            (weight.columns.int() & 0xFFFF, weight.row_offsets.long()),
        ):
            assert torch.equal(csr_unpack(weight.values, columns, offsets, k), weight.to_dense()), (n, k)


def test_some_rows_and_columns_beyond_15_bits():
    for k in (40_000, 65_536, 70_000):
        columns = torch.tensor([0, 32_767, 32_768, k - 1])
        columns = columns.int() if k > 65_536 else columns.int().short()
        dense = csr_unpack(torch.tensor([1.0, 2.0, 3.0, 4.0]), columns, torch.tensor([1, 4]).int(), k)
        assert dense[0].nonzero().flatten().tolist() == [32_767, 32_768, k - 1] and dense.sum() == 9
