"""dual_shift_pack: bytes by hand, the reference, contract and poison tests under every instruction set."""

import pytest
import torch

from prism_kernels import ops
from prism_kernels.reference.codebooks import BITS
from prism_kernels.reference.dual_shift_pack import dual_shift_pack as reference

SHAPES = [
    (1, 1),
    (3, 7),
    (5, 63),
    (16, 64),
    (17, 65),
    (33, 130),
    (0, 16),
    (3, 0),
    (0, 0),
    (31, 1009),
    (15, 32),
    (2, 31),
]


def codes_of(shape, bits, generator):
    return torch.randint(0, 2**bits, shape, generator=generator, dtype=torch.uint8)


def test_columns_of_a_quad_are_in_the_order_0_2_1_3():
    codes = torch.tensor([[10, 11, 12, 13, 14]], dtype=torch.uint8)
    packed = ops.dual_shift_pack(codes, 8)
    assert packed.shape == (1, 1, 8, 64)
    assert packed[0, 0, 0, :4].tolist() == [10, 12, 11, 13]  # quad 0, row 0
    assert packed[0, 0, 1, :4].tolist() == [14, 0, 0, 0]  # quad 1
    assert int(packed.count_nonzero()) == 5


def test_rows_follow_each_other_in_lanes_and_panels():
    codes = torch.zeros(18, 1, dtype=torch.uint8)
    codes[15], codes[17] = 7, 9
    packed = ops.dual_shift_pack(codes, 4)
    assert packed.shape == (2, 1, 4, 64)
    assert packed[0, 0, 0, 60] == 7 and packed[1, 0, 0, 4] == 9
    assert int(packed.count_nonzero()) == 2


def one_quad_each(*codes):
    """[1, 32]: in every quad of the block its first column alone has a code."""
    row = torch.zeros(1, 32, dtype=torch.uint8)
    row[0, ::4] = torch.tensor(codes, dtype=torch.uint8)
    return row


#: bits, the first columns of the eight quads, the first byte of each vector of the block.
LITERALS = [
    (2, (1, 2, 3, 0, 0, 1, 0, 2), [0b00_11_10_01, 0b10_00_01_00]),
    (4, (1, 2, 3, 4, 5, 6, 7, 15), [0x21, 0x43, 0x65, 0xF7]),
    # low two bits of 1, 2, 3, 4 | of 5, 6, 7, 0 | bit 2 of all eight
    (3, (1, 2, 3, 4, 5, 6, 7, 0), [0b00_11_10_01, 0b00_11_10_01, 0b0111_1000]),
    (5, (1, 18, 3, 20, 5, 22, 7, 24), [0x21, 0x43, 0x65, 0x87, 0b1010_1010]),
    (6, (1, 18, 35, 52, 5, 22, 39, 56), [0x21, 0x43, 0x65, 0x87, 0b11_10_01_00, 0b11_10_01_00]),
    (8, (1, 2, 130, 4, 5, 6, 7, 255), [1, 2, 130, 4, 5, 6, 7, 255]),
]


@pytest.mark.parametrize(("bits", "codes", "vectors"), LITERALS, ids=[str(bits) for bits, *_ in LITERALS])
def test_bit_planes(bits, codes, vectors):
    packed = ops.dual_shift_pack(one_quad_each(*codes), bits)
    assert packed[0, 0, :, 0].tolist() == vectors
    assert not packed[..., 1:].any()


def test_the_compiled_kernel_serves(isa):
    ops.dual_shift_pack(torch.zeros(2, 3, dtype=torch.uint8), 3)
    isa.assert_served("dual_shift_pack", best="generic")


def test_matches_reference(isa, poison, generator):
    for bits in BITS:
        for shape in SHAPES:
            codes = codes_of(shape, bits, generator)
            assert torch.equal(ops.dual_shift_pack(codes, bits), reference(codes, bits)), (bits, shape)


def test_only_the_low_bits_are_stored(isa, generator):
    for bits in BITS:
        codes = torch.randint(0, 256, (19, 77), generator=generator, dtype=torch.uint8)
        assert torch.equal(ops.dual_shift_pack(codes, bits), reference(codes & (2**bits - 1), bits)), bits


def test_strided_codes(isa, generator):
    codes = codes_of((40, 6), 5, generator).T
    assert torch.equal(ops.dual_shift_pack(codes, 5), reference(codes, 5))


def test_opcheck():
    for bits, shape in [(3, (4, 65)), (4, (0, 8)), (8, (2, 0))]:
        torch.library.opcheck(torch.ops.prism.dual_shift_pack.default, (torch.zeros(shape, dtype=torch.uint8), bits))


def test_compiles_to_one_graph(generator):
    codes = codes_of((4, 65), 3, generator)
    compiled = torch.compile(lambda c: ops.dual_shift_pack(c, 3), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(codes), reference(codes, 3))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(4, dtype=torch.uint8), 4), ValueError, r"codes must have shape \[\*, \*\], got \[4\]"),
        ((torch.zeros(2, 4), 4), TypeError, "codes must have dtype uint8, got torch.float32"),
        ((torch.zeros(2, 4, dtype=torch.uint8), 7), ValueError, "bits must be one of 2, 3, 4, 5, 6, 8, got 7"),
        (([[1]], 4), TypeError, "codes must be a tensor, got list"),
    ],
)
def test_errors_name_argument_rule_and_value(arguments, error, message):
    with pytest.raises(error, match=f"dual_shift_pack: {message}"):
        ops.dual_shift_pack(*arguments)
