"""bitmap_dual_shift_dequantize: codes behind a bitmap back to weights, under every instruction set."""

import pytest
import torch

from bitmap_problems import FLOATS, GRIDS, dual_shift, masks, mixed_mask
from prism_kernels import ops
from prism_kernels.reference.bitmap_dual_shift_dequantize import bitmap_dual_shift_dequantize as reference

SHAPES = [(1, 1), (2, 7), (3, 63), (5, 65), (7, 128), (3, 200), (2, 1009), (0, 64), (3, 0)]
GROUPS = (1, 5, 32, 64, 100, 128, 5000)


def rounded(problem, dtype):
    return problem.exact.float().to(dtype)


def test_literal(isa):
    mask = torch.tensor([[False, True, True]])
    codes = torch.tensor([[9, 3, 12]], dtype=torch.uint8)
    packed = ops.bitmap_dual_shift_pack(codes, mask, 4)
    scale, zero = torch.tensor([[0.5, 2.0]]).bfloat16(), torch.tensor([[0x85]], dtype=torch.uint8)
    column_scale = torch.tensor([1.0, 4.0, 0.25]).bfloat16()
    decoded = ops.bitmap_dual_shift_dequantize(
        *packed, scale, zero, column_scale, bits=4, group_size=2, dtype=torch.float32
    )
    assert decoded.tolist() == [[0.0, (3 - 5) * 0.5 * 4.0, (12 - 8) * 2.0 * 0.25]]
    isa.assert_served("bitmap_dual_shift_dequantize", best="avx512")


def test_decodes_exactly(isa, poison, generator):
    for shape in SHAPES:
        for bits, codebook in GRIDS:
            for group_size in GROUPS:
                problem = dual_shift(mixed_mask(*shape, generator), bits, group_size, codebook, generator)
                for dtype in FLOATS:
                    decoded = ops.bitmap_dual_shift_dequantize(*problem.tensors, **problem.grid, dtype=dtype)
                    assert decoded.dtype == dtype
                    where = (shape, problem.grid, dtype)
                    if codebook == "uniform":
                        assert torch.equal(decoded, rounded(problem, dtype)), where
                    assert torch.equal(decoded, reference(*problem.tensors, *problem.grid.values(), dtype)), where


def test_pruned_is_positive_zero(isa, poison, generator):
    for shape in SHAPES:
        for name, mask in masks(*shape, generator):
            for bits, codebook in GRIDS:
                problem = dual_shift(mask, bits, 64, codebook, generator)
                decoded = ops.bitmap_dual_shift_dequantize(*problem.tensors, **problem.grid, dtype=torch.float32)
                pruned = decoded[~mask]
                assert not pruned.any(), (shape, name, bits, codebook)
                assert not pruned.signbit().any(), (shape, name, bits, codebook)


def test_thread_count_does_not_matter(generator):
    problem = dual_shift(mixed_mask(301, 257, generator), 4, 64, "uniform", generator)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = ops.bitmap_dual_shift_dequantize(*problem.tensors, **problem.grid, dtype=torch.bfloat16)
        torch.set_num_threads(3)
        many = ops.bitmap_dual_shift_dequantize(*problem.tensors, **problem.grid, dtype=torch.bfloat16)
        assert torch.equal(one, many)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("shape", [(4, 64), (3, 7), (0, 8)], ids=str)
@pytest.mark.parametrize(("bits", "codebook"), [(4, "uniform"), (3, "nf3")])
def test_opcheck(generator, shape, bits, codebook):
    problem = dual_shift(mixed_mask(*shape, generator), bits, 64, codebook, generator)
    arguments = (*problem.tensors, *problem.grid.values(), torch.bfloat16)
    torch.library.opcheck(torch.ops.prism.bitmap_dual_shift_dequantize.default, arguments)


def test_compiles_to_one_graph(generator):
    problem = dual_shift(mixed_mask(5, 130, generator), 4, 64, "uniform", generator)

    def decode(*tensors):
        return ops.bitmap_dual_shift_dequantize(*tensors, **problem.grid, dtype=torch.float32)

    compiled = torch.compile(decode, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*problem.tensors), rounded(problem, torch.float32))


@pytest.mark.parametrize("offsets", [[0, 2, 1], [-1, 1, 2], [0, 1, 3]])
def test_offsets_outside_the_codes_are_refused(isa, offsets):
    tensors = good_tensors() | {"row_offsets": torch.tensor(offsets, dtype=torch.int32)}
    with pytest.raises(RuntimeError, match="row_offsets must rise from 0 or more to at most 2"):
        ops.bitmap_dual_shift_dequantize(**tensors, bits=4, group_size=64, dtype=torch.float32)


def good_tensors():
    return {
        "bitmap": torch.ones(2, 8, dtype=torch.uint8),
        "codes": torch.zeros(2, dtype=torch.uint8),
        "row_offsets": torch.tensor([0, 1, 2], dtype=torch.int32),
        "scale": torch.ones(2, 1).bfloat16(),
        "zero": torch.zeros(2, 1, dtype=torch.uint8),
        "column_scale": torch.ones(64).bfloat16(),
    }


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"bitmap": torch.zeros(2, 9, dtype=torch.uint8)},
            ValueError,
            r"bitmap must have shape .*, got \[2, 9\]",
        ),
        ({"codes": torch.zeros(2)}, TypeError, "codes must have dtype uint8, got torch.float32"),
        ({"row_offsets": torch.zeros(3)}, TypeError, "row_offsets must have dtype int32"),
        ({"scale": torch.ones(2, 2).bfloat16()}, ValueError, r"scale must have shape \[2, 1\], got \[2, 2\]"),
        ({"zero": torch.zeros(2, 2, dtype=torch.uint8)}, ValueError, r"zero must have shape \[2, 1\], got \[2, 2\]"),
        ({"column_scale": torch.ones(64)}, TypeError, "column_scale must have dtype bfloat16"),
        ({"bits": 7}, ValueError, "bits must be one of 2, 3, 4, 5, 6, 8, got 7"),
        ({"group_size": 0}, ValueError, "group_size must be at least 1, got 0"),
        ({"codebook": "nf4", "bits": 3}, ValueError, "bits must be 4 for codebook 'nf4', got 3"),
        ({"codebook": "fp4"}, ValueError, "codebook must be one of uniform, nf4, nf3, got 'fp4'"),
        ({"dtype": torch.float64}, ValueError, "dtype must be float32, float16 or bfloat16, got torch.float64"),
    ],
)
def test_errors_name_argument_rule_and_value(changes, error, message):
    options = {"bits": 4, "group_size": 64, "dtype": torch.float32}
    with pytest.raises(error, match=f"bitmap_dual_shift_dequantize: {message}"):
        ops.bitmap_dual_shift_dequantize(**(good_tensors() | options | changes))
