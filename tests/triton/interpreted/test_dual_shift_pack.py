"""dual_shift_pack and dual_shift_unpack in Triton: the reference's bytes, there and back."""

import pytest
import torch

from prism_kernels.reference.dual_shift_pack import dual_shift_pack as reference
from prism_kernels.triton.dual_shift_pack import dual_shift_pack
from prism_kernels.triton.dual_shift_unpack import dual_shift_unpack


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_matches_reference(poison, generator, bits):
    for n, k in [(1, 1), (3, 33), (16, 32), (17, 130), (50, 257), (0, 16), (3, 0)]:
        codes = torch.randint(2**bits, (n, k), generator=generator, dtype=torch.uint8)
        packed = dual_shift_pack(codes, bits)
        assert torch.equal(packed, reference(codes, bits)), (n, k)
        assert torch.equal(dual_shift_unpack(packed, n, k, bits), codes), (n, k)


def test_higher_bits_are_dropped(generator):
    codes = torch.randint(256, (20, 40), generator=generator, dtype=torch.uint8)
    assert torch.equal(dual_shift_pack(codes, 3), reference(codes, 3))
