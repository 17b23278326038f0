"""dual_shift_dequantize: literal, reference, contract and poison tests under every instruction set."""

import pytest
import torch

from dual_shift_cases import GRIDS, GROUP_SIZES, all_grids, make_column_scale, make_packed, pack_tensors
from prism_kernels import ops
from prism_kernels.reference.codebooks import levels
from prism_kernels.reference.dual_shift_dequantize import dual_shift_dequantize as reference

SHAPES = [(1, 1), (3, 7), (5, 63), (16, 64), (17, 130), (0, 16), (3, 0), (31, 257), (2, 1100), (33, 48), (15, 95)]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def test_literal(isa):
    """Rows 0, 8 and 16 of 17, byte by byte: weights, scales and the two halves of a byte of zero points."""
    codes = torch.zeros(2, 1, 4, 64, dtype=torch.uint8)
    codes[0, 0, 0, [0, 2, 1]] = torch.tensor([1, 3, 15], dtype=torch.uint8)  # row 0: columns 0, 1, 2 are bytes 0, 2, 1
    codes[0, 0, 0, [32, 34, 33]] = torch.tensor([4, 5, 6], dtype=torch.uint8)  # row 8
    codes[1, 0, 0, [0, 2, 1]] = torch.tensor([7, 8, 9], dtype=torch.uint8)  # row 16, in the second panel
    scale = torch.zeros(2, 2, 16).bfloat16()  # [panel, group, row]
    scale[0, :, 0], scale[0, :, 8], scale[1, :, 0] = torch.tensor([[0.5, 2.0], [1.0, 4.0], [8.0, 0.25]]).bfloat16()
    zero = torch.zeros(2, 2, 8, dtype=torch.uint8)
    zero[0, :, 0] = torch.tensor([0x62, 0x7E], dtype=torch.uint8)  # row 0: 2 and 14; row 8: 6 and 7
    zero[1, :, 0] = torch.tensor([0x07, 0x01], dtype=torch.uint8)  # row 16: 7 and 1
    column_scale = torch.tensor([1.0, 3.0, 0.25], dtype=torch.bfloat16)
    grid = {"n": 17, "bits": 4, "group_size": 2, "dtype": torch.float32}
    decoded = ops.dual_shift_dequantize(codes, scale, zero, column_scale, **grid)
    assert decoded[[0, 8, 16]].tolist() == [[-0.5, 1.5, 0.5], [-2.0, -3.0, -1.0], [0.0, 24.0, 0.5]]
    assert int(decoded.count_nonzero()) == 8
    none = torch.empty(2, 2, 0, dtype=torch.uint8)
    decoded = ops.dual_shift_dequantize(codes, scale, none, column_scale, codebook="nf4", **grid)
    table = levels("nf4")
    assert torch.equal(decoded[0], torch.stack([table[1] * 0.5, table[3] * 0.5 * 3, table[15] * 2 * 0.25]))
    assert torch.equal(decoded[16], torch.stack([table[7] * 8, table[8] * 8 * 3, table[9] * 0.25 * 0.25]))


def test_each_instruction_set_serves(isa):
    for dtype in DTYPES:
        ops.dual_shift_dequantize(*make_packed(3, 7, 5, 4, "uniform"), n=3, bits=5, group_size=4, dtype=dtype)
        isa.assert_served("dual_shift_dequantize", best="avx512")


def test_matches_reference(isa, poison, generator):
    for n, k in SHAPES:
        for index, (bits, codebook, group) in enumerate(all_grids((64, 32, 24, 5, 1, 16, 48, 100, 4096))):
            packed = make_packed(n, k, bits, group, codebook)
            dtype = DTYPES[index % 3]
            grid = {"n": n, "bits": bits, "group_size": group, "codebook": codebook}
            actual = ops.dual_shift_dequantize(*packed, **grid, dtype=dtype)
            expected = reference(*packed, n, bits, group, codebook, dtype)
            assert actual.dtype == dtype and torch.equal(actual, expected), (n, k, bits, codebook, group, dtype)


def test_random_bits_match_reference(isa, generator):
    """Any bytes decode like the reference, zero points beyond the codes' range and set margins included."""
    n, k, groups = 23, 203, 7
    for bits, codebook in GRIDS:
        for dtype in DTYPES:
            codes = torch.randint(0, 256, (2, 7, bits, 64), generator=generator, dtype=torch.uint8)
            zero_bytes = 0 if codebook != "uniform" else 8 if bits <= 4 else 16
            zero = torch.randint(0, 256, (2, groups, zero_bytes), generator=generator, dtype=torch.uint8)
            scale = torch.rand(2, groups, 16, generator=generator).bfloat16()
            packed = (codes, scale, zero, make_column_scale(k, generator))
            grid = {"n": n, "bits": bits, "group_size": 32, "codebook": codebook}
            actual = ops.dual_shift_dequantize(*packed, **grid, dtype=dtype)
            assert torch.equal(actual, reference(*packed, n, bits, 32, codebook, dtype)), (bits, codebook, dtype)


def test_pruned_weights_decode_to_exactly_zero(isa, generator):
    """Random masks, dead rows and columns, single survivors, groups that do not divide k; every width and codebook."""
    for bits, codebook, group in all_grids(GROUP_SIZES):
        for n, k, density in ((6, 131, 0.5), (17, 64, 0.02), (4, 97, 0.95)):
            weight = torch.randn(n, k, generator=generator) + 3 * torch.randn(n, 1, generator=generator)
            mask = torch.rand(n, k, generator=generator) < density
            mask[0] = False
            mask[:, k // 3] = False
            mask[1] = False
            mask[1, -1] = True
            column_scale = make_column_scale(k, generator)
            grid = {"bits": bits, "group_size": group, "codebook": codebook}
            codes, scale, zero = ops.dual_shift_quantize(weight, column_scale, mask, **grid)
            packed = pack_tensors(codes, scale, zero, column_scale, bits, codebook)
            for dtype in DTYPES:
                decoded = ops.dual_shift_dequantize(*packed, n=n, **grid, dtype=dtype)
                assert bool((decoded[~mask] == 0).all()), (bits, codebook, group, n, k)


def test_uniform_is_exact_in_float32(isa, generator):
    n, k = 19, 130
    group = torch.arange(k) // 32
    weight = torch.randn(n, k, generator=generator)
    column_scale = make_column_scale(k, generator)
    for bits in (2, 3, 4, 5, 6, 8):
        codes, scale, zero = ops.dual_shift_quantize(weight, column_scale, bits=bits, group_size=32)
        steps = codes.double() - zero.double()[:, group]
        exact = steps * scale.double()[:, group] * column_scale.double()
        packed = pack_tensors(codes, scale, zero, column_scale, bits, "uniform")
        actual = ops.dual_shift_dequantize(*packed, n=n, bits=bits, group_size=32, dtype=torch.float32)
        assert torch.equal(actual.double(), exact), bits


def test_the_number_of_threads_does_not_matter(isa):
    packed = make_packed(100, 300, 4, 64, "uniform")
    grid = {"n": 100, "bits": 4, "group_size": 64, "dtype": torch.bfloat16}
    many = ops.dual_shift_dequantize(*packed, **grid)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(many, ops.dual_shift_dequantize(*packed, **grid))
    finally:
        torch.set_num_threads(threads)


def test_opcheck():
    op = torch.ops.prism.dual_shift_dequantize.default
    cases = [(4, 65, "uniform", torch.bfloat16), (17, 64, "nf4", torch.float32), (0, 8, "nf4", torch.float16)]
    for n, k, codebook, dtype in cases:
        torch.library.opcheck(op, (*make_packed(n, k, 4, 32, codebook), n, 4, 32, codebook, dtype))


def test_compiles_to_one_graph():
    packed = make_packed(5, 65, 3, 32, "uniform")

    def decode(*tensors):
        return ops.dual_shift_dequantize(*tensors, n=5, bits=3, group_size=32, dtype=torch.bfloat16)

    compiled = torch.compile(decode, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*packed), reference(*packed, 5, 3, 32, "uniform", torch.bfloat16))


U8 = torch.zeros(1, 1, 4, 64, dtype=torch.uint8)
ONES = torch.ones(1, 1, 16).bfloat16()
GOOD = {"codes": U8, "scale": ONES, "zero": U8[:, 0, :1, :8], "column_scale": torch.ones(8).bfloat16(),
        "n": 2, "bits": 4, "group_size": 64, "dtype": torch.float32}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"codes": U8[..., :3]}, ValueError, r"codes must have shape \[1, 1, 4, 64\], got \[1, 1, 4, 3\]"),
        ({"codes": U8.int()}, TypeError, "codes must have dtype uint8, got torch.int32"),
        ({"n": 17}, ValueError, r"codes must have shape \[2, 1, 4, 64\], got \[1, 1, 4, 64\]"),
        ({"n": -1}, ValueError, "n must be at least 0, got -1"),
        ({"scale": ONES[:, :, :2]}, ValueError, r"scale must have shape \[1, 1, 16\], got \[1, 1, 2\]"),
        ({"scale": ONES.float()}, TypeError, "scale must have dtype bfloat16, got torch.float32"),
        ({"zero": U8[:, 0, :1, :16]}, ValueError, r"zero must have shape \[1, 1, 8\], got \[1, 1, 16\]"),
        ({"codebook": "nf4"}, ValueError, r"zero must have shape \[1, 1, 0\], got \[1, 1, 8\]"),
        ({"column_scale": torch.ones(2, 4).bfloat16()}, ValueError, r"column_scale must have shape \[\*\], got"),
        ({"column_scale": torch.ones(33).bfloat16()}, ValueError, r"codes must have shape \[1, 2, 4, 64\], got"),
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
