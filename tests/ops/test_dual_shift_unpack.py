"""dual_shift_unpack: bytes by hand, the reference, contract and poison tests under every instruction set."""

import pytest
import torch

from prism_kernels import ops
from prism_kernels.reference.codebooks import BITS
from prism_kernels.reference.dual_shift_unpack import dual_shift_unpack as reference

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


def packed_of(n, k, bits, generator):
    return torch.randint(0, 256, (-(-n // 16), -(-k // 32), bits, 64), generator=generator, dtype=torch.uint8)


def test_literal(isa):
    packed = torch.zeros(2, 1, 3, 64, dtype=torch.uint8)
    packed[0, 0, 0, :4] = torch.tensor([0b11_10_01, 0b00_00_10, 0b01, 0])  # quads 0, 1, 2 of row 0; byte 1 is column 2
    packed[0, 0, 2, 0] = 0b010  # bit 2 of quad 1
    packed[1, 0, 1, 4] = 0b10_00_00_00  # quad 7 of row 17
    codes = ops.dual_shift_unpack(packed, 18, 32, 3)
    assert codes.shape == (18, 32)
    assert codes[0].tolist() == [1, 1, 2, 0, 6, 0, 0, 0, 3] + [0] * 23
    assert codes[17].tolist() == [0] * 28 + [2, 0, 0, 0]
    assert int(codes.count_nonzero()) == 6
    isa.assert_served("dual_shift_unpack", best="generic")


def test_matches_reference(isa, poison, generator):
    for bits in BITS:
        for n, k in SHAPES:
            packed = packed_of(n, k, bits, generator)  # what lies past n and k is random: it must not matter
            assert torch.equal(ops.dual_shift_unpack(packed, n, k, bits), reference(packed, n, k, bits)), (bits, n, k)


def test_inverts_dual_shift_pack(isa, generator):
    for bits in BITS:
        for n, k in SHAPES:
            codes = torch.randint(0, 2**bits, (n, k), generator=generator, dtype=torch.uint8)
            assert torch.equal(ops.dual_shift_unpack(ops.dual_shift_pack(codes, bits), n, k, bits), codes), (bits, n, k)


def test_strided(isa, generator):
    packed = packed_of(40, 70, 3, generator).transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(ops.dual_shift_unpack(packed, 40, 70, 3), reference(packed, 40, 70, 3))


def test_opcheck(generator):
    for bits, n, k in [(3, 4, 65), (4, 0, 8), (8, 2, 0)]:
        packed = packed_of(n, k, bits, generator)
        torch.library.opcheck(torch.ops.prism.dual_shift_unpack.default, (packed, n, k, bits))


def test_compiles_to_one_graph(generator):
    packed = packed_of(4, 65, 3, generator)
    compiled = torch.compile(lambda p: ops.dual_shift_unpack(p, 4, 65, 3), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(packed), reference(packed, 4, 65, 3))


U8 = torch.zeros(1, 1, 4, 64, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((U8.int(), 2, 8, 4), TypeError, "packed must have dtype uint8, got torch.int32"),
        ((U8, 2, 33, 4), ValueError, r"packed must have shape \[1, 2, 4, 64\], got \[1, 1, 4, 64\]"),
        ((U8, 17, 8, 4), ValueError, r"packed must have shape \[2, 1, 4, 64\], got \[1, 1, 4, 64\]"),
        ((U8, 2, 8, 1), ValueError, "bits must be one of .*, got 1"),
        ((U8, -1, 8, 4), ValueError, "n must be at least 0, got -1"),
        ((U8, 2, -1, 4), ValueError, "k must be at least 0, got -1"),
    ],
)
def test_errors_name_argument_rule_and_value(arguments, error, message):
    with pytest.raises(error, match=f"dual_shift_unpack: {message}"):
        ops.dual_shift_unpack(*arguments)
