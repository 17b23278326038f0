"""bitmap_panel_offsets: what the packers return, derived from the bitmap alone."""

import pytest
import torch

from bitmap_problems import SHAPES, masks
from prism_kernels import ops


def test_literal():
    bitmap = torch.zeros(2, 2, 4, dtype=torch.uint8)
    bitmap[0, 0, 0], bitmap[0, 1, 3], bitmap[1, 1] = 0b111, 0b1, 0xFF
    assert ops.bitmap_panel_offsets(bitmap).tolist() == [0, 4, 36]
    quads = torch.zeros(2, 2, 8, dtype=torch.uint8)
    quads[0, 0, 0], quads[0, 1, 7], quads[1, 1, 3] = 0b111, 0b1, 0xFF
    assert ops.bitmap_panel_offsets(quads, 4).tolist() == [0, 3, 7]  # 3 codes take 2 bytes, 1 takes 1, 8 take 4
    assert ops.bitmap_panel_offsets(quads, 3).tolist() == [0, 3, 6]
    assert ops.bitmap_panel_offsets(bitmap).dtype == torch.int64


def test_equals_the_packers(generator):
    for shape in SHAPES:
        for name, mask in masks(*shape, generator):
            bitmap, values, offsets = ops.bitmap_pack(torch.ones(shape), mask)
            assert torch.equal(ops.bitmap_panel_offsets(bitmap), offsets), (shape, name)
            assert offsets[-1] == values.numel()
            for bits in (2, 3, 4, 5, 6, 8):
                quads, codes, offsets = ops.bitmap_dual_shift_pack(torch.zeros(shape, dtype=torch.uint8), mask, bits)
                assert torch.equal(ops.bitmap_panel_offsets(quads, bits), offsets), (shape, name, bits)
                assert offsets[-1] == codes.numel()


def test_errors_name_argument_rule_and_value():
    with pytest.raises(TypeError, match="bitmap_panel_offsets: bitmap must have dtype uint8"):
        ops.bitmap_panel_offsets(torch.zeros(2, 8, 4).bool())
    with pytest.raises(ValueError, match=r"bitmap must have shape \[\*, \*, 4\], got \[2, 7, 8\]"):
        ops.bitmap_panel_offsets(torch.zeros(2, 7, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"bitmap must have shape \[\*, \*, 8\], got \[2, 7, 4\]"):
        ops.bitmap_panel_offsets(torch.zeros(2, 7, 4, dtype=torch.uint8), 4)
    with pytest.raises(ValueError, match="bits must be one of 2, 3, 4, 5, 6, 8, got 7"):
        ops.bitmap_panel_offsets(torch.zeros(2, 8, 8, dtype=torch.uint8), 7)
