"""bitmap_row_offsets: what the packers return, derived from the bitmap alone."""

import pytest
import torch

from bitmap_problems import masks
from prism_kernels import ops


def test_literal():
    bitmap = torch.zeros(2, 16, dtype=torch.uint8)
    bitmap[0, 0], bitmap[0, 8], bitmap[1, 15] = 0b111, 0b1, 0xFF
    assert ops.bitmap_row_offsets(bitmap).tolist() == [0, 4, 12]
    assert ops.bitmap_row_offsets(bitmap, 4).tolist() == [0, 3, 7]  # 3 codes take 2 bytes, 1 takes 1, 8 take 4
    assert ops.bitmap_row_offsets(bitmap, 3).tolist() == [0, 3, 6]
    assert ops.bitmap_row_offsets(bitmap).dtype == torch.int32


def test_equals_the_packers(generator):
    for shape in [(1, 1), (3, 63), (5, 65), (31, 127), (0, 16), (3, 0), (2, 1009)]:
        for name, mask in masks(*shape, generator):
            bitmap, _, offsets = ops.bitmap_pack(torch.ones(shape), mask)
            assert torch.equal(ops.bitmap_row_offsets(bitmap), offsets), (shape, name)
            for bits in (2, 3, 4, 5, 6, 8):
                _, codes, offsets = ops.bitmap_dual_shift_pack(torch.zeros(shape, dtype=torch.uint8), mask, bits)
                assert torch.equal(ops.bitmap_row_offsets(bitmap, bits), offsets), (shape, name, bits)
                assert offsets[-1] == codes.numel()


def test_errors_name_argument_rule_and_value():
    with pytest.raises(TypeError, match="bitmap_row_offsets: bitmap must have dtype uint8"):
        ops.bitmap_row_offsets(torch.zeros(2, 8).bool())
    with pytest.raises(ValueError, match=r"bitmap must have whole 8-byte blocks, got \[2, 7\]"):
        ops.bitmap_row_offsets(torch.zeros(2, 7, dtype=torch.uint8))
    with pytest.raises(ValueError, match="bits must be one of 2, 3, 4, 5, 6, 8, got 7"):
        ops.bitmap_row_offsets(torch.zeros(2, 8, dtype=torch.uint8), 7)
