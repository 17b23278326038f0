"""bitmap_unpack: the inverse of bitmap_pack, under every instruction set."""

import pytest
import torch

from bitmap_problems import FLOATS, masks
from prism_kernels import ops
from prism_kernels.reference.bitmap_pack import bitmap_pack

SHAPES = [(1, 1), (2, 7), (3, 63), (4, 64), (5, 65), (31, 127), (3, 128), (17, 200), (0, 16), (3, 0), (2, 1009)]


def test_literal(isa):
    bitmap = torch.zeros(2, 8, dtype=torch.uint8)
    bitmap[0, 0], bitmap[1, 1] = 0b101, 0b1
    weight = ops.bitmap_unpack(bitmap, torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 2, 3], dtype=torch.int32), 9)
    assert weight.tolist() == [[1, 0, 2, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 3]]
    isa.assert_served("bitmap_unpack", best="avx512")


def test_round_trip_is_bitwise(isa, poison, generator):
    for shape in SHAPES:
        for dtype in FLOATS:
            weight = torch.randn(shape, generator=generator).to(dtype)
            for name, mask in masks(*shape, generator):
                decoded = ops.bitmap_unpack(*bitmap_pack(weight, mask), shape[1])
                assert decoded.dtype == dtype
                assert torch.equal(decoded, torch.where(mask, weight, 0)), (shape, dtype, name)
                assert not decoded[~mask].signbit().any(), (shape, dtype, name)


def test_non_finite_values_survive(isa):
    weight = torch.tensor([[float("nan"), 0.0, float("inf"), -0.0, float("-inf")]])
    mask = torch.tensor([[True, False, True, True, True]])
    decoded = ops.bitmap_unpack(*bitmap_pack(weight, mask), 5)
    assert torch.equal(decoded.view(torch.int32), weight.view(torch.int32))


def test_thread_count_does_not_matter(generator):
    packed = bitmap_pack(torch.randn(301, 257, generator=generator), torch.rand(301, 257, generator=generator) < 0.5)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = ops.bitmap_unpack(*packed, 257)
        torch.set_num_threads(3)
        assert torch.equal(one, ops.bitmap_unpack(*packed, 257))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("shape", [(4, 64), (3, 7), (0, 8)], ids=str)
def test_opcheck(shape):
    packed = bitmap_pack(torch.randn(shape), torch.rand(shape) < 0.5)
    torch.library.opcheck(torch.ops.prism.bitmap_unpack.default, (*packed, shape[1]))


def test_compiles_to_one_graph():
    weight = torch.randn(4, 70)
    packed = bitmap_pack(weight)
    compiled = torch.compile(lambda *t: ops.bitmap_unpack(*t, 70), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*packed), weight)


@pytest.mark.parametrize("offsets", [[0, 3, 2], [-1, 2, 3], [0, 2, 4]])
def test_offsets_outside_the_values_are_refused(isa, offsets):
    bitmap = torch.full((2, 8), 1, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="bitmap_unpack: row_offsets must rise from 0 or more to at most 3"):
        ops.bitmap_unpack(bitmap, torch.ones(3), torch.tensor(offsets, dtype=torch.int32), 64)


U8, I32 = torch.uint8, torch.int32


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (torch.zeros(2, 9, dtype=U8), torch.zeros(3), torch.zeros(3, dtype=I32), 64),
            ValueError,
            r"bitmap_unpack: bitmap must have shape \[\*, 8\], got \[2, 9\]",
        ),
        (
            (torch.zeros(2, 8, dtype=U8), torch.zeros(3), torch.zeros(2, dtype=I32), 64),
            ValueError,
            r"row_offsets must have shape \[3\], got \[2\]",
        ),
        (
            (torch.zeros(2, 8, dtype=U8), torch.zeros(3), torch.zeros(3), 64),
            TypeError,
            "row_offsets must have dtype int32",
        ),
        (
            (torch.zeros(2, 8, dtype=U8), torch.zeros(3, 1), torch.zeros(3, dtype=I32), 64),
            ValueError,
            r"values must have shape \[\*\], got \[3, 1\]",
        ),
        (
            (torch.zeros(2, 8, dtype=U8), torch.zeros(3), torch.zeros(3, dtype=I32), -1),
            ValueError,
            "k must be at least 0, got -1",
        ),
    ],
)
def test_errors_name_argument_rule_and_value(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.bitmap_unpack(*arguments)
