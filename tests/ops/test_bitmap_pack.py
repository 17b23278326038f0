"""bitmap_pack: a bit per column and the kept weights, under every instruction set."""

import pytest
import torch

from bitmap_problems import FLOATS, SHAPES, masks
from prism_kernels import ops
from prism_kernels.reference.bitmap_pack import bitmap_pack as reference


def test_literal(isa):
    weight = torch.zeros(18, 3)
    weight[0, 0], weight[0, 2], weight[1, 1], weight[15, 1], weight[15, 2], weight[17, 0] = 1.0, 2.0, 3.0, 4.0, 5.0, 6.0
    bitmap, values, panel_offsets = ops.bitmap_pack(weight)
    # Columns 0 and 1 of rows 0 to 15, then column 2 of them; then rows 16 and 17.
    assert bitmap.tolist() == [
        [[0b1001, 0, 0, 0b10000000], [0b1, 0, 0, 0b01000000]],
        [[0b100, 0, 0, 0], [0, 0, 0, 0]],
    ]
    assert values.tolist() == [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]
    assert panel_offsets.tolist() == [0, 5, 6]
    assert panel_offsets.dtype == torch.int64
    isa.assert_served("bitmap_pack", best="generic")


def test_matches_reference(isa, poison, generator):
    for shape in SHAPES:
        for dtype in FLOATS:
            weight = torch.randn(shape, generator=generator).to(dtype)
            for name, mask in masks(*shape, generator):
                for actual, expected in zip(ops.bitmap_pack(weight, mask), reference(weight, mask), strict=True):
                    assert actual.dtype == expected.dtype, (shape, dtype, name)
                    assert torch.equal(actual, expected), (shape, dtype, name)


def test_no_mask_keeps_what_differs_from_zero(isa, generator):
    for dtype in FLOATS:
        weight = torch.randn(19, 130, generator=generator).to(dtype)
        weight[torch.rand(19, 130, generator=generator) < 0.4] = 0.0
        weight[3, 5], weight[3, 6], weight[4, 129] = -0.0, float("nan"), float("inf")
        bitmap, values, panel_offsets = ops.bitmap_pack(weight)
        expected = reference(weight, weight != 0)
        assert torch.equal(bitmap, expected[0])
        assert torch.equal(values.view(torch.uint8), expected[1].view(torch.uint8))
        assert torch.equal(panel_offsets, expected[2])


def test_a_kept_zero_stays(isa):
    weight = torch.tensor([[0.0, -0.0, 1.0]])
    bitmap, values, _ = ops.bitmap_pack(weight, torch.tensor([[True, True, False]]))
    assert bitmap.flatten()[0] == 0b011
    assert values.signbit().tolist() == [False, True]


def test_strided_input(isa, generator):
    weight, mask = torch.randn(70, 9, generator=generator).T, (torch.rand(70, 9, generator=generator) < 0.5).T
    for actual, expected in zip(ops.bitmap_pack(weight, mask), reference(weight, mask), strict=True):
        assert torch.equal(actual, expected)


def test_thread_count_does_not_matter(generator):
    weight, mask = torch.randn(301, 257, generator=generator), torch.rand(301, 257, generator=generator) < 0.5
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = ops.bitmap_pack(weight, mask)
        torch.set_num_threads(3)
        assert all(torch.equal(a, b) for a, b in zip(one, ops.bitmap_pack(weight, mask), strict=True))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("shape", [(4, 64), (3, 7), (0, 8)], ids=str)
def test_opcheck(shape):
    torch.library.opcheck(torch.ops.prism.bitmap_pack.default, (torch.randn(shape), torch.rand(shape) < 0.5))
    torch.library.opcheck(torch.ops.prism.bitmap_pack.default, (torch.randn(shape), None))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(4),), ValueError, r"bitmap_pack: weight must have shape \[\*, \*\], got \[4\]"),
        ((torch.zeros(2, 4).int(),), TypeError, "bitmap_pack: weight must have dtype float32 .*int32"),
        ((torch.zeros(2, 4), torch.ones(2, 3).bool()), ValueError, r"mask must have shape \[2, 4\], got \[2, 3\]"),
        ((torch.zeros(2, 4), torch.ones(2, 4)), TypeError, "mask must have dtype bool, got torch.float32"),
    ],
)
def test_errors_name_argument_rule_and_value(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.bitmap_pack(*arguments)
