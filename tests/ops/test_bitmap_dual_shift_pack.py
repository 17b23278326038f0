"""bitmap_dual_shift_pack: a bit per column and the survivors' codes, under every instruction set."""

import pytest
import torch

from bitmap_problems import SHAPES, masks
from prism_kernels import ops
from prism_kernels.reference.bitmap_dual_shift_pack import bitmap_dual_shift_pack as reference
from prism_kernels.reference.panels import to_quads

BITS = (2, 3, 4, 5, 6, 8)


def test_literal(isa):
    codes = torch.zeros(18, 5, dtype=torch.uint8)
    mask = torch.zeros(18, 5, dtype=torch.bool)
    kept = ((0, 1, 0xA), (0, 2, 0xB), (1, 3, 0xC), (15, 0, 0xD), (2, 4, 0xE), (16, 0, 0xF))
    for row, column, code in kept:
        codes[row, column], mask[row, column] = code, True
    bitmap, packed, panel_offsets = ops.bitmap_dual_shift_pack(codes, mask, 4)
    # Bits of a row stand for columns 0, 2, 1, 3 of the quad.
    assert bitmap.tolist() == [
        [[0b10000110, 0, 0, 0, 0, 0, 0, 0b00010000], [0, 0b1, 0, 0, 0, 0, 0, 0]],
        [[0b1, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]],
    ]
    assert packed.tolist() == [0xAB, 0xDC, 0x0E, 0x0F]
    assert panel_offsets.tolist() == [0, 3, 4]
    assert panel_offsets.dtype == torch.int64
    isa.assert_served("bitmap_dual_shift_pack", best="generic")


def test_matches_reference(isa, poison, generator):
    for shape in SHAPES:
        for bits in BITS:
            codes = torch.randint(2**bits, shape, generator=generator, dtype=torch.uint8)
            for name, mask in masks(*shape, generator):
                actual, expected = ops.bitmap_dual_shift_pack(codes, mask, bits), reference(codes, mask, bits)
                assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True)), (shape, bits, name)


def test_nothing_pruned_is_stored(isa, generator):
    for shape in SHAPES:
        for name, mask in masks(*shape, generator):
            counts = to_quads(mask, 4).sum(-1)
            for bits in BITS:
                codes = torch.full(shape, 2**bits - 1, dtype=torch.uint8)
                packed = ops.bitmap_dual_shift_pack(codes, mask, bits)[1]
                assert packed.numel() == ((counts * bits + 7) // 8).sum(), (shape, bits, name)
                changed = torch.where(mask, codes, 0)
                assert torch.equal(packed, ops.bitmap_dual_shift_pack(changed, mask, bits)[1]), (shape, bits, name)


def test_only_the_low_bits_of_a_code_are_stored(isa, generator):
    codes = torch.randint(256, (5, 130), generator=generator, dtype=torch.uint8)
    mask = torch.rand(5, 130, generator=generator) < 0.5
    for bits in BITS:
        packed = ops.bitmap_dual_shift_pack(codes, mask, bits)[1]
        assert torch.equal(packed, ops.bitmap_dual_shift_pack(codes & (2**bits - 1), mask, bits)[1])


def test_thread_count_does_not_matter(generator):
    codes = torch.randint(16, (301, 257), generator=generator, dtype=torch.uint8)
    mask = torch.rand(301, 257, generator=generator) < 0.5
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = ops.bitmap_dual_shift_pack(codes, mask, 4)
        torch.set_num_threads(3)
        many = ops.bitmap_dual_shift_pack(codes, mask, 4)
        assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("shape", [(4, 64), (3, 7), (0, 8)], ids=str)
def test_opcheck(shape):
    codes = torch.randint(16, shape, dtype=torch.uint8)
    torch.library.opcheck(torch.ops.prism.bitmap_dual_shift_pack.default, (codes, torch.rand(shape) < 0.5, 4))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (torch.zeros(2, 4), torch.ones(2, 4).bool(), 4),
            TypeError,
            "bitmap_dual_shift_pack: codes must have dtype uint8, got torch.float32",
        ),
        (
            (torch.zeros(2, 4).byte(), torch.ones(2, 3).bool(), 4),
            ValueError,
            r"mask must have shape \[2, 4\], got \[2, 3\]",
        ),
        (
            (torch.zeros(2, 4).byte(), torch.ones(2, 4).bool(), 7),
            ValueError,
            "bits must be one of 2, 3, 4, 5, 6, 8, got 7",
        ),
    ],
)
def test_errors_name_argument_rule_and_value(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.bitmap_dual_shift_pack(*arguments)
