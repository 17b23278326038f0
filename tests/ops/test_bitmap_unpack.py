"""bitmap_unpack: the inverse of bitmap_pack, under every instruction set."""

import pytest
import torch

from bitmap_problems import FLOATS, SHAPES, masks
from prism_kernels import ops
from prism_kernels.reference.bitmap_pack import bitmap_pack


def test_literal(isa):
    bitmap = torch.zeros(2, 2, 4, dtype=torch.uint8)
    bitmap[0, 0, 0], bitmap[0, 1, 3], bitmap[1, 1, 0] = 0b110, 0b01000000, 0b1
    weight = ops.bitmap_unpack(bitmap, torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0, 3, 4]), 17, 3)
    expected = torch.zeros(17, 3)
    expected[0, 1], expected[1, 0], expected[15, 2], expected[16, 2] = 1.0, 2.0, 3.0, 4.0
    assert torch.equal(weight, expected)
    isa.assert_served("bitmap_unpack", best="avx512")


def test_round_trip_is_bitwise(isa, poison, generator):
    for shape in SHAPES:
        for dtype in FLOATS:
            weight = torch.randn(shape, generator=generator).to(dtype)
            for name, mask in masks(*shape, generator):
                decoded = ops.bitmap_unpack(*bitmap_pack(weight, mask), *shape)
                assert decoded.dtype == dtype
                assert torch.equal(decoded, torch.where(mask, weight, 0)), (shape, dtype, name)
                assert not decoded[~mask].signbit().any(), (shape, dtype, name)


def test_non_finite_values_survive(isa):
    weight = torch.tensor([[float("nan"), 0.0, float("inf"), -0.0, float("-inf")]])
    mask = torch.tensor([[True, False, True, True, True]])
    decoded = ops.bitmap_unpack(*bitmap_pack(weight, mask), 1, 5)
    assert torch.equal(decoded.view(torch.int32), weight.view(torch.int32))


def test_thread_count_does_not_matter(generator):
    packed = bitmap_pack(torch.randn(301, 257, generator=generator), torch.rand(301, 257, generator=generator) < 0.5)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = ops.bitmap_unpack(*packed, 301, 257)
        torch.set_num_threads(3)
        assert torch.equal(one, ops.bitmap_unpack(*packed, 301, 257))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("shape", [(4, 64), (3, 7), (0, 8)], ids=str)
def test_opcheck(shape):
    packed = bitmap_pack(torch.randn(shape), torch.rand(shape) < 0.5)
    torch.library.opcheck(torch.ops.prism.bitmap_unpack.default, (*packed, *shape))


def test_compiles_to_one_graph():
    weight = torch.randn(4, 70)
    packed = bitmap_pack(weight)
    compiled = torch.compile(lambda *t: ops.bitmap_unpack(*t, 4, 70), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*packed), weight)


def test_panels_are_decoded_alone(isa, generator):
    weight = torch.randn(67, 70, generator=generator).bfloat16()
    bitmap, values, offsets = bitmap_pack(weight, torch.rand(67, 70, generator=generator) < 0.5)
    whole = ops.bitmap_unpack(bitmap, values, offsets, 67, 70)
    for first, last, n in ((0, 1, 16), (1, 3, 32), (2, 5, 35), (4, 5, 3)):
        part = ops.bitmap_unpack(bitmap[first:last], values, offsets[first : last + 1], n, 70)
        assert torch.equal(part, whole[16 * first : 16 * first + n])


@pytest.mark.parametrize("offsets", [[0, 3, 2], [-1, 2, 3], [0, 2, 4]])
def test_offsets_outside_the_values_are_refused(isa, offsets):
    bitmap = torch.full((2, 1, 4), 1, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="bitmap_unpack: panel_offsets must rise from 0 or more to at most 3"):
        ops.bitmap_unpack(bitmap, torch.ones(3), torch.tensor(offsets), 32, 2)


def good_tensors():
    return {
        "bitmap": torch.zeros(2, 3, 4, dtype=torch.uint8),
        "values": torch.zeros(3),
        "panel_offsets": torch.zeros(3, dtype=torch.int64),
        "n": 17,
        "k": 5,
    }


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"bitmap": torch.zeros(2, 3, 8).byte()}, ValueError, r"bitmap must have shape \[2, 3, 4\], got \[2, 3, 8\]"),
        ({"bitmap": torch.zeros(2, 3, 4)}, TypeError, "bitmap must have dtype uint8, got torch.float32"),
        ({"n": 33}, ValueError, r"bitmap must have shape \[3, 3, 4\], got \[2, 3, 4\]"),
        ({"k": 7}, ValueError, r"bitmap must have shape \[2, 4, 4\], got \[2, 3, 4\]"),
        ({"panel_offsets": torch.zeros(2).long()}, ValueError, r"panel_offsets must have shape \[3\], got \[2\]"),
        ({"panel_offsets": torch.zeros(3).int()}, TypeError, "panel_offsets must have dtype int64, got torch.int32"),
        ({"values": torch.zeros(3, 1)}, ValueError, r"values must have shape \[\*\], got \[3, 1\]"),
        ({"values": torch.zeros(3).int()}, TypeError, "values must have dtype float32 .*, got torch.int32"),
        ({"k": -1}, ValueError, "k must be at least 0, got -1"),
        ({"n": -1}, ValueError, "n must be at least 0, got -1"),
    ],
)
def test_errors_name_argument_rule_and_value(changes, error, message):
    with pytest.raises(error, match=f"bitmap_unpack: {message}"):
        ops.bitmap_unpack(**(good_tensors() | changes))
