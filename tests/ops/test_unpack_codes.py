"""unpack_codes: literal, reference, contract and poison tests under every instruction set."""

import pytest
import torch

from prism_kernels import ops
from prism_kernels.reference.codebooks import BITS
from prism_kernels.reference.unpack_codes import unpack_codes as reference

SHAPES = [(1, 1), (3, 7), (5, 63), (4, 64), (2, 65), (17, 130), (0, 16), (3, 0), (9, 1009), (2, 8), (3, 31)]


def packed_of(n, count, bits, generator):
    return torch.randint(0, 256, (n, -(-count * bits // 8)), generator=generator, dtype=torch.uint8)


def test_literal(isa):
    assert ops.unpack_codes(torch.tensor([[0x21, 0x03]], dtype=torch.uint8), 4, 3).tolist() == [[1, 2, 3]]
    stream = (0b101 << 9) | (0b011 << 6) | (0b010 << 3) | 0b001
    packed = torch.tensor([list(stream.to_bytes(2, "little"))], dtype=torch.uint8)
    assert ops.unpack_codes(packed, 3, 4).tolist() == [[1, 2, 3, 5]]
    isa.assert_served("unpack_codes", best="avx512")


def test_matches_reference(isa, poison, generator):
    for bits in BITS:
        for n, count in SHAPES:
            packed = packed_of(n, count, bits, generator)  # padding bits are random: they must not matter
            assert torch.equal(ops.unpack_codes(packed, bits, count), reference(packed, bits, count)), (bits, n, count)


def test_inverts_pack_codes(isa, generator):
    for bits in BITS:
        for n, count in SHAPES:
            codes = torch.randint(0, 2**bits, (n, count), generator=generator, dtype=torch.uint8)
            assert torch.equal(ops.unpack_codes(ops.pack_codes(codes, bits), bits, count), codes), (bits, n, count)


def test_strided(isa, generator):
    packed = packed_of(9, 40, 4, generator).T
    assert torch.equal(ops.unpack_codes(packed, 3, 24), reference(packed, 3, 24))


def test_opcheck():
    for bits, n, count in [(3, 4, 65), (4, 0, 8), (8, 2, 0)]:
        packed = torch.zeros(n, -(-count * bits // 8), dtype=torch.uint8)
        torch.library.opcheck(torch.ops.prism.unpack_codes.default, (packed, bits, count))


def test_compiles_to_one_graph(generator):
    packed = packed_of(4, 65, 3, generator)
    compiled = torch.compile(lambda p: ops.unpack_codes(p, 3, 65), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(packed), reference(packed, 3, 65))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(2, 4), 4, 8), TypeError, "unpack_codes: packed must have dtype uint8, got torch.float32"),
        ((torch.zeros(2, 4, dtype=torch.uint8), 4, 9), ValueError, r"packed must have shape \[\*, 5\], got \[2, 4\]"),
        ((torch.zeros(2, 4, dtype=torch.uint8), 1, 8), ValueError, "unpack_codes: bits must be one of .*, got 1"),
        ((torch.zeros(2, 4, dtype=torch.uint8), 4, -1), ValueError, "unpack_codes: count must be at least 0, got -1"),
    ],
)
def test_errors_name_argument_rule_and_value(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.unpack_codes(*arguments)
