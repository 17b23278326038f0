"""Sparse24Weight and Sparse24DualShiftWeight: bitmap weights of which every quad stores exactly 2 columns."""

import pytest
import torch

from bitmap_problems import FLOATS, GRIDS, quad_mask
from prism_kernels.formats import (
    BitmapDualShiftWeight,
    BitmapWeight,
    FormatError,
    Sparse24DualShiftWeight,
    Sparse24Weight,
)
from prism_kernels.reference.bitmap import from_pairs, unpack_bits
from prism_kernels.reference.panels import from_quads

SHAPES = [(1, 1), (2, 2), (5, 3), (3, 4), (17, 65), (31, 127), (16, 64), (0, 16), (3, 0)]


def stored(packed):
    unpack = from_pairs if isinstance(packed, BitmapWeight) else from_quads
    return unpack(unpack_bits(packed.bitmap), *packed.shape)


def assert_two_of_four(mask):
    for begin in range(0, mask.shape[1], 4):
        quad = mask[:, begin : begin + 4]
        assert (quad.sum(1) == min(2, quad.shape[1])).all(), begin


def test_round_trip_and_bytes(generator):
    for n, k in SHAPES:
        for dtype in FLOATS:
            for density in (1.0, 0.6, 0.0):
                weight, mask = torch.randn(n, k, generator=generator).to(dtype), quad_mask(n, k, generator, density)
                packed = Sparse24Weight.pack(weight, mask)
                packed.validate()
                assert torch.equal(packed.to_dense(), torch.where(mask, weight, 0)), (n, k, dtype, density)
                assert_two_of_four(stored(packed))
                assert bool(stored(packed)[mask].all())
                kept = n * (2 * (k // 4) + min(2, k % 4))
                assert packed.nbytes == -(-n // 16) * -(-k // 2) * 4 + kept * weight.element_size()
                again = Sparse24Weight.from_tensors(packed.tensors(), packed.config())
                assert type(again) is Sparse24Weight and torch.equal(again.to_dense(), packed.to_dense())


def test_quantized_equals_the_bitmap_format(generator):
    for n, k in SHAPES:
        for bits, codebook in GRIDS:
            for density in (1.0, 0.6, 0.0):
                weight, mask = torch.randn(n, k, generator=generator), quad_mask(n, k, generator, density)
                scales = (0.5 + torch.rand(k, generator=generator)).bfloat16()
                options = {"bits": bits, "codebook": codebook, "group_size": 5, "column_scale": scales}
                packed = Sparse24DualShiftWeight.pack(weight, mask, **options)
                packed.validate()
                assert_two_of_four(stored(packed))
                expected = BitmapDualShiftWeight.pack(weight, mask, **options).to_dense()
                assert torch.equal(packed.to_dense(), expected), (n, k, options, density)
                assert not packed.to_dense()[~mask].any()
                again = Sparse24DualShiftWeight.from_tensors(packed.tensors(), packed.config())
                assert type(again) is Sparse24DualShiftWeight and torch.equal(again.to_dense(), expected)


def test_pruned_values_are_stored_as_zero():
    """Column 1 fills the quad up, whatever the weight had there."""
    mask = torch.tensor([[True, False, False, False]])
    packed = Sparse24Weight.pack(torch.tensor([[7.0, 8.0, 9.0, 5.0]]), mask)
    assert packed.values.tolist() == [7.0, 0.0]
    assert packed.bitmap[0, :, 0].tolist() == [0b11, 0]


def test_default_mask_is_the_non_zeros(generator):
    weight = torch.randn(8, 96, generator=generator)
    weight[~quad_mask(8, 96, generator)] = 0
    assert torch.equal(Sparse24Weight.pack(weight).to_dense(), weight)
    assert not Sparse24DualShiftWeight.pack(weight).to_dense()[weight == 0].any()


def test_sizes(generator):
    weight, mask = torch.randn(256, 4096, generator=generator).bfloat16(), quad_mask(256, 4096, generator)
    assert Sparse24Weight.pack(weight, mask).bits_per_weight == 9.0
    packed = Sparse24DualShiftWeight.pack(weight, mask, bits=4, group_size=64)
    assert packed.bits_per_weight == 1 + 2 + 20 / 64 + 16 / 256


@pytest.mark.parametrize("weight_class", [Sparse24Weight, Sparse24DualShiftWeight])
def test_more_than_two_are_refused(weight_class, generator):
    mask = quad_mask(20, 42, generator)
    mask[18, 8:12] = torch.tensor([True, True, False, True])
    message = f"{weight_class.NAME}: mask must keep at most 2 of 4 columns, got 3 in row 18 from column 8 on"
    with pytest.raises(FormatError, match=message):
        weight_class.pack(torch.randn(20, 42, generator=generator), mask)


@pytest.mark.parametrize(
    ("weight_class", "source"), [(Sparse24Weight, BitmapWeight), (Sparse24DualShiftWeight, BitmapDualShiftWeight)]
)
def test_a_quad_that_does_not_store_two_is_refused(weight_class, source, generator):
    mask = quad_mask(20, 44, generator)
    for columns, row, count in (((), 3, 0), ((5,), 17, 1), ((4, 6, 7), 19, 3)):
        spoiled = mask.clone()
        spoiled[row, 4:8] = False
        spoiled[row, list(columns)] = True
        packed = source.pack(torch.randn(20, 44, generator=generator), spoiled)
        message = f"{weight_class.NAME}: bitmap must store 2 of 4 columns, got {count} in row {row} from column 4 on"
        with pytest.raises(FormatError, match=message):
            weight_class.from_tensors(packed.tensors(), packed.config())


def test_the_rules_of_bitmaps_hold_too(generator):
    packed = Sparse24Weight.pack(torch.randn(4, 8, generator=generator), quad_mask(4, 8, generator))
    tensors = packed.tensors() | {"values": packed.values[:-1].clone()}
    with pytest.raises(FormatError, match=r"sparse24: values must have shape \[16\], got \[15\]"):
        Sparse24Weight.from_tensors(tensors, packed.config())
    codes, scales = torch.zeros(4, 8).byte(), (torch.ones(4, 1).bfloat16(), torch.zeros(4, 1).byte())
    with pytest.raises(FormatError, match="sparse24_dual_shift: codebook must be one of"):
        column_scale = torch.ones(8).bfloat16()
        Sparse24DualShiftWeight.from_codes(
            codes, codes != 0, *scales, column_scale, bits=4, group_size=8, codebook="fp4"
        )
