"""bitmap_dual_shift_dequantize: codes behind a bitmap back to weights, under every instruction set."""

import pytest
import torch

from bitmap_problems import FLOATS, GRIDS, GROUPS, SHAPES, dual_shift, masks, mixed_mask
from prism_kernels import ops
from prism_kernels.reference.bitmap_dual_shift_dequantize import bitmap_dual_shift_dequantize as reference


def rounded(problem, dtype):
    return problem.exact.float().to(dtype)


def test_literal(isa):
    mask = torch.zeros(17, 3, dtype=torch.bool)
    mask[0, 1], mask[0, 2], mask[9, 0], mask[16, 2] = True, True, True, True
    codes = torch.zeros(17, 3, dtype=torch.uint8)
    codes[0] = torch.tensor([9, 3, 12])
    codes[9, 0], codes[16, 2] = 7, 1
    packed = ops.bitmap_dual_shift_pack(codes, mask, 4)
    scale = torch.zeros(2, 2, 16).bfloat16()
    scale[0, 0, 0], scale[0, 1, 0], scale[0, 0, 9], scale[1, 1, 0] = 0.5, 2.0, 1.0, 4.0
    zero = torch.zeros(2, 2, 8, dtype=torch.uint8)
    zero[0, 0, 0], zero[0, 1, 0], zero[0, 0, 1], zero[1, 1, 0] = 5, 8, 0x20, 3  # rows 0, 0, 9 and 16
    column_scale = torch.tensor([1.0, 4.0, 0.25]).bfloat16()
    decoded = ops.bitmap_dual_shift_dequantize(
        *packed, scale, zero, column_scale, n=17, bits=4, group_size=2, dtype=torch.float32
    )
    expected = torch.zeros(17, 3)
    expected[0, 1], expected[0, 2] = (3 - 5) * 0.5 * 4.0, (12 - 8) * 2.0 * 0.25
    expected[9, 0], expected[16, 2] = 7 - 2, (1 - 3) * 4.0 * 0.25
    assert torch.equal(decoded, expected)
    isa.assert_served("bitmap_dual_shift_dequantize", best="avx512")


def test_decodes_exactly(isa, poison, generator):
    for i, shape in enumerate(SHAPES):
        for bits, codebook in GRIDS:
            for group_size in GROUPS if shape == (33, 200) else GROUPS[i % 4 :: 4]:
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


def test_panels_are_decoded_alone(isa, generator):
    for bits, group_size in ((3, 32), (8, 5)):
        problem = dual_shift(mixed_mask(67, 70, generator), bits, group_size, "uniform", generator)
        whole = rounded(problem, torch.float32)
        bitmap, codes, offsets, scale, zero, column_scale = problem.tensors
        for first, last, n in ((0, 1, 16), (1, 3, 32), (2, 5, 35), (4, 5, 3)):
            rows = (scale[first:last], zero[first:last], column_scale)
            tensors = (bitmap[first:last], codes, offsets[first : last + 1], *rows)
            part = ops.bitmap_dual_shift_dequantize(*tensors, **(problem.grid | {"n": n}), dtype=torch.float32)
            assert torch.equal(part, whole[16 * first : 16 * first + n])


@pytest.mark.parametrize("offsets", [[0, 2, 1], [-1, 1, 2], [0, 1, 3]])
def test_offsets_outside_the_codes_are_refused(isa, offsets):
    tensors = good_tensors() | {"panel_offsets": torch.tensor(offsets)}
    with pytest.raises(RuntimeError, match="panel_offsets must rise from 0 or more to at most 2"):
        ops.bitmap_dual_shift_dequantize(**tensors, bits=4, group_size=64, dtype=torch.float32)


def good_tensors():
    return {
        "bitmap": torch.ones(2, 16, 8, dtype=torch.uint8),
        "codes": torch.zeros(2, dtype=torch.uint8),
        "panel_offsets": torch.tensor([0, 1, 2]),
        "scale": torch.ones(2, 1, 16).bfloat16(),
        "zero": torch.zeros(2, 1, 8, dtype=torch.uint8),
        "column_scale": torch.ones(64).bfloat16(),
        "n": 32,
    }


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"bitmap": torch.zeros(2, 8, 8).byte()}, ValueError, r"bitmap must have shape \[2, 16, 8\], got \[2, 8, 8\]"),
        ({"n": 33}, ValueError, r"bitmap must have shape \[3, 16, 8\], got \[2, 16, 8\]"),
        ({"n": -5}, ValueError, "n must be at least 0, got -5"),
        ({"codes": torch.zeros(2)}, TypeError, "codes must have dtype uint8, got torch.float32"),
        ({"panel_offsets": torch.zeros(3)}, TypeError, "panel_offsets must have dtype int64"),
        ({"panel_offsets": torch.zeros(2).long()}, ValueError, r"panel_offsets must have shape \[3\], got \[2\]"),
        ({"scale": torch.ones(2, 2, 16).bfloat16()}, ValueError, r"scale must have shape \[2, 1, 16\], got"),
        ({"zero": torch.zeros(2, 1, 16).byte()}, ValueError, r"zero must have shape \[2, 1, 8\], got \[2, 1, 16\]"),
        ({"column_scale": torch.ones(64)}, TypeError, "column_scale must have dtype bfloat16"),
        ({"bits": 7}, ValueError, "bits must be one of 2, 3, 4, 5, 6, 8, got 7"),
        ({"bits": 5}, ValueError, r"zero must have shape \[2, 1, 16\], got \[2, 1, 8\]"),
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
