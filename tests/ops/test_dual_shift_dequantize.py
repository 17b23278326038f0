"""dual_shift_dequantize: literal, reference, contract and poison tests under every instruction set."""

import pytest
import torch

from dual_shift_cases import GRIDS, GROUP_SIZES, all_grids, make_column_scale, make_packed
from prism_kernels import ops
from prism_kernels.reference.codebooks import levels
from prism_kernels.reference.dual_shift_dequantize import dual_shift_dequantize as reference

SHAPES = [(1, 1), (3, 7), (5, 63), (4, 64), (17, 130), (0, 16), (3, 0), (9, 257), (2, 1100)]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def test_literal(isa):
    codes = torch.tensor([[0x31, 0x0F]], dtype=torch.uint8)  # 1, 3, 15
    scale = torch.tensor([[0.5, 2.0]], dtype=torch.bfloat16)
    zero = torch.tensor([[0xE2]], dtype=torch.uint8)  # 2, 14
    column_scale = torch.tensor([1.0, 3.0, 0.25], dtype=torch.bfloat16)
    decoded = ops.dual_shift_dequantize(codes, scale, zero, column_scale, bits=4, group_size=2, dtype=torch.float32)
    assert decoded.tolist() == [[-0.5, 1.5, 0.5]]
    isa.assert_served("dual_shift_dequantize", best="avx512")
    none = torch.empty(1, 0, dtype=torch.uint8)
    decoded = ops.dual_shift_dequantize(
        codes, scale, none, column_scale, bits=4, group_size=2, codebook="nf4", dtype=torch.float32
    )
    table = levels("nf4")
    assert torch.equal(decoded, torch.stack([table[1] * 0.5, table[3] * 0.5 * 3, table[15] * 2 * 0.25])[None])


def test_matches_reference(isa, poison, generator):
    for n, k in SHAPES:
        for index, (bits, codebook, group) in enumerate(all_grids((64, 32, 24, 5, 1, 4096))):
            packed = make_packed(n, k, bits, group, codebook)
            dtype = DTYPES[index % 3]
            actual = ops.dual_shift_dequantize(*packed, bits=bits, group_size=group, codebook=codebook, dtype=dtype)
            expected = reference(*packed, bits, group, codebook, dtype)
            assert actual.dtype == dtype and torch.equal(actual, expected), (n, k, bits, codebook, group, dtype)


def test_random_bits_match_reference(isa, generator):
    """Any bytes decode like the reference, zero points beyond the codes' range and set padding bits included."""
    n, k = 7, 203
    for bits, codebook in GRIDS:
        for dtype in DTYPES:
            groups = -(-k // 32)
            codes = torch.randint(0, 256, (n, -(-k * bits // 8)), generator=generator, dtype=torch.uint8)
            zero = torch.randint(0, 256, (n, -(-groups * bits // 8)), generator=generator, dtype=torch.uint8)
            zero = zero if codebook == "uniform" else zero[:, :0]
            scale = torch.rand(n, groups, generator=generator).bfloat16()
            packed = (codes, scale, zero, make_column_scale(k, generator))
            actual = ops.dual_shift_dequantize(*packed, bits=bits, group_size=32, codebook=codebook, dtype=dtype)
            assert torch.equal(actual, reference(*packed, bits, 32, codebook, dtype)), (bits, codebook, dtype)


def test_pruned_weights_decode_to_exactly_zero(isa, generator):
    """Random masks, dead rows and columns, single survivors, groups that do not divide k; every width and codebook."""
    for bits, codebook, group in all_grids(GROUP_SIZES):
        for n, k, density in ((6, 131, 0.5), (5, 64, 0.02), (4, 97, 0.95)):
            weight = torch.randn(n, k, generator=generator) + 3 * torch.randn(n, 1, generator=generator)
            mask = torch.rand(n, k, generator=generator) < density
            mask[0] = False
            mask[:, k // 3] = False
            mask[1] = False
            mask[1, -1] = True
            column_scale = make_column_scale(k, generator)
            grid = {"bits": bits, "group_size": group, "codebook": codebook}
            codes, scale, zero = ops.dual_shift_quantize(weight, column_scale, mask, **grid)
            packed = (ops.pack_codes(codes, bits), scale, ops.pack_codes(zero, bits), column_scale)
            for dtype in DTYPES:
                decoded = ops.dual_shift_dequantize(*packed, **grid, dtype=dtype)
                assert bool((decoded[~mask] == 0).all()), (bits, codebook, group, n, k)


def test_uniform_is_exact_in_float32(isa, generator):
    for bits in (2, 3, 4, 5, 6, 8):
        codes, scale, zero, column_scale = make_packed(9, 130, bits, 32, "uniform")
        group = torch.arange(130) // 32
        steps = ops.unpack_codes(codes, bits, 130).double() - ops.unpack_codes(zero, bits, 5).double()[:, group]
        exact = steps * scale.double()[:, group] * column_scale.double()
        actual = ops.dual_shift_dequantize(
            codes, scale, zero, column_scale, bits=bits, group_size=32, dtype=torch.float32
        )
        assert torch.equal(actual.double(), exact), bits


def test_opcheck(generator):
    op = torch.ops.prism.dual_shift_dequantize.default
    cases = [(4, 65, "uniform", torch.bfloat16), (3, 64, "nf4", torch.float32), (0, 8, "nf4", torch.float16)]
    for n, k, codebook, dtype in cases:
        torch.library.opcheck(op, (*make_packed(n, k, 4, 32, codebook), 4, 32, codebook, dtype))


def test_compiles_to_one_graph(generator):
    packed = make_packed(5, 65, 3, 32, "uniform")

    def decode(*tensors):
        return ops.dual_shift_dequantize(*tensors, bits=3, group_size=32, dtype=torch.bfloat16)

    compiled = torch.compile(decode, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*packed), reference(*packed, 3, 32, "uniform", torch.bfloat16))


U8 = torch.zeros(2, 4, dtype=torch.uint8)
GOOD = {"codes": U8, "scale": torch.ones(2, 1).bfloat16(), "zero": U8[:, :1], "column_scale": torch.ones(8).bfloat16(),
        "bits": 4, "group_size": 64, "dtype": torch.float32}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"codes": U8[:, :3]}, ValueError, r"codes must have shape \[\*, 4\], got \[2, 3\]"),
        ({"codes": U8.int()}, TypeError, "codes must have dtype uint8, got torch.int32"),
        ({"scale": torch.ones(2, 2).bfloat16()}, ValueError, r"scale must have shape \[2, 1\], got \[2, 2\]"),
        ({"scale": torch.ones(2, 1)}, TypeError, "scale must have dtype bfloat16, got torch.float32"),
        ({"zero": U8[:, :0]}, ValueError, r"zero must have shape \[2, 1\], got \[2, 0\]"),
        ({"codebook": "nf4"}, ValueError, r"zero must have shape \[2, 0\], got \[2, 1\]"),
        ({"column_scale": torch.ones(2, 4).bfloat16()}, ValueError, r"column_scale must have shape \[\*\], got"),
        ({"bits": 1}, ValueError, "bits must be one of 2, 3, 4, 5, 6, 8, got 1"),
        ({"group_size": -1}, ValueError, "group_size must be at least 1, got -1"),
        ({"dtype": torch.int32}, ValueError, "dtype must be float32, float16 or bfloat16, got torch.int32"),
    ],
)  # fmt: skip
def test_errors_name_argument_rule_and_value(changes, error, message):
    arguments = {**GOOD, **changes}
    tensors = [arguments.pop(name) for name in ("codes", "scale", "zero", "column_scale")]
    with pytest.raises(error, match=f"dual_shift_dequantize: {message}"):
        ops.dual_shift_dequantize(*tensors, **arguments)
