"""pack_codes: literal, reference, contract and poison tests under every instruction set."""

import pytest
import torch

from prism_kernels import ops
from prism_kernels.reference.codebooks import BITS
from prism_kernels.reference.pack_codes import pack_codes as reference

SHAPES = [(1, 1), (3, 7), (5, 63), (4, 64), (2, 65), (17, 130), (0, 16), (3, 0), (9, 1009), (2, 8), (3, 31)]


def codes_of(shape, bits, generator):
    return torch.randint(0, 2**bits, shape, generator=generator, dtype=torch.uint8)


def test_literal(isa):
    codes = torch.tensor([[1, 2, 3, 7, 0, 5, 4, 6, 7]], dtype=torch.uint8)
    # 3 bits, little endian: 1 + 2*8 + 3*64 = 0xd1 + ..., checked by hand from the sum of code_i * 8**i
    stream = sum(int(c) << (3 * i) for i, c in enumerate(codes[0]))
    expected = torch.tensor([list(stream.to_bytes(4, "little"))], dtype=torch.uint8)
    assert expected[0, 0] == 0xD1
    assert torch.equal(ops.pack_codes(codes, 3), expected)
    assert ops.pack_codes(torch.tensor([[1, 2, 3]], dtype=torch.uint8), 4).tolist() == [[0x21, 0x03]]
    isa.assert_served("pack_codes", best="avx512")


def test_matches_reference(isa, poison, generator):
    for bits in BITS:
        for shape in SHAPES:
            codes = codes_of(shape, bits, generator)
            assert torch.equal(ops.pack_codes(codes, bits), reference(codes, bits)), (bits, shape)


def test_only_the_low_bits_are_stored(isa, generator):
    for bits in BITS:
        codes = torch.randint(0, 256, (3, 77), generator=generator, dtype=torch.uint8)
        assert torch.equal(ops.pack_codes(codes, bits), reference(codes & (2**bits - 1), bits)), bits


def test_strided_codes(isa, generator):
    codes = codes_of((40, 6), 5, generator).T
    assert torch.equal(ops.pack_codes(codes, 5), reference(codes, 5))


def test_high_8_bit_codes_survive(isa):
    codes = torch.arange(256, dtype=torch.uint8).reshape(2, 128)
    assert torch.equal(ops.unpack_codes(ops.pack_codes(codes, 8), 8, 128), codes)


def test_opcheck():
    for bits, shape in [(3, (4, 65)), (4, (0, 8)), (8, (2, 0))]:
        torch.library.opcheck(torch.ops.prism.pack_codes.default, (torch.zeros(shape, dtype=torch.uint8), bits))


def test_compiles_to_one_graph(generator):
    codes = codes_of((4, 65), 3, generator)
    compiled = torch.compile(lambda c: ops.pack_codes(c, 3), fullgraph=True, backend="aot_eager")
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
    with pytest.raises(error, match=f"pack_codes: {message}"):
        ops.pack_codes(*arguments)
