"""dual_shift_dequantize in Triton: bit for bit the reference, on odd shapes and any bytes."""

import torch

from dual_shift_cases import GRIDS, make_column_scale, make_packed
from prism_kernels.reference.dual_shift_dequantize import dual_shift_dequantize as reference
from prism_kernels.triton.dual_shift_dequantize import dual_shift_dequantize

SHAPES = [(1, 1), (3, 7), (5, 63), (16, 64), (17, 130), (0, 16), (3, 0), (31, 257), (33, 48)]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
GROUP_SIZES = (64, 32, 24, 5, 1, 100, 4096)


def test_matches_reference(poison):
    for s, (n, k) in enumerate(SHAPES):
        for g, (bits, codebook) in enumerate(GRIDS):
            group, dtype = GROUP_SIZES[(s + g) % len(GROUP_SIZES)], DTYPES[(s + g) % 3]
            packed = make_packed(n, k, bits, group, codebook)
            actual = dual_shift_dequantize(*packed, n, bits, group, codebook, dtype)
            expected = reference(*packed, n, bits, group, codebook, dtype)
            assert actual.dtype == dtype and torch.equal(actual, expected), (n, k, bits, codebook, group, dtype)


def test_random_bits_match_reference(generator):
    n, k, groups = 23, 203, 7
    for bits, codebook in GRIDS:
        codes = torch.randint(0, 256, (2, 7, bits, 64), generator=generator, dtype=torch.uint8)
        zero_bytes = 0 if codebook != "uniform" else 8 if bits <= 4 else 16
        zero = torch.randint(0, 256, (2, groups, zero_bytes), generator=generator, dtype=torch.uint8)
        scale = torch.rand(2, groups, 16, generator=generator).bfloat16()
        packed = (codes, scale, zero, make_column_scale(k, generator))
        for dtype in DTYPES:
            actual = dual_shift_dequantize(*packed, n, bits, 32, codebook, dtype)
            assert torch.equal(actual, reference(*packed, n, bits, 32, codebook, dtype)), (bits, codebook, dtype)
