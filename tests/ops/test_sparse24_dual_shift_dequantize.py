"""sparse24_dual_shift_dequantize against float64, the bitmap's decoding, and the argument contract."""

import pytest
import torch

from prism_kernels import ops
from prism_kernels.reference.panels import pack_zero, rows_to_panels
from sparse24_problems import GROUPS, codes

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SHAPES = ((1, 1), (3, 5), (17, 66), (33, 200), (16, 64))


def decode(weight, dtype, **changes):
    options = {"n": weight.n, "group_size": weight.group_size, "dtype": dtype} | changes
    return ops.sparse24_dual_shift_dequantize(*weight.tensors, **options)


def test_literal():
    steps, mask = torch.zeros(17, 3, dtype=torch.uint8), torch.zeros(17, 3, dtype=torch.bool)
    steps[0], mask[0] = torch.tensor([9, 3, 12]), torch.tensor([False, True, True])
    steps[16, 2], mask[16, 1:] = 1, True
    scale, zero = torch.ones(17, 1).bfloat16(), torch.zeros(17, 1, dtype=torch.uint8)
    scale[0], zero[0], scale[16], zero[16] = 0.5, 5, 4.0, 3
    column_scale = torch.tensor([1.0, 4.0, 0.25]).bfloat16()
    tensors = (*ops.sparse24_pack(steps, mask), rows_to_panels(scale), pack_zero(zero, 4), column_scale)
    expected = torch.zeros(17, 3)
    expected[0, 1], expected[0, 2] = (3 - 5) * 0.5 * 4.0, (12 - 5) * 0.5 * 0.25
    expected[16, 1], expected[16, 2] = (0 - 3) * 4.0 * 4.0, (1 - 3) * 4.0 * 0.25
    for dtype in DTYPES:
        y = ops.sparse24_dual_shift_dequantize(*tensors, n=17, group_size=32, dtype=dtype)
        assert torch.equal(y, expected.to(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_decodes_exactly(poison, generator, dtype):
    for n, k in SHAPES:
        for group_size in GROUPS:
            weight = codes(n, k, group_size, generator)
            exact = (weight.unscaled.float() * weight.column_scale.float()).to(dtype)
            y = decode(weight, dtype)
            assert y.dtype == dtype and torch.equal(y, exact), (n, k, group_size)
            pruned = y[weight.unscaled == 0]
            assert not pruned.signbit().any(), (n, k, group_size)


def test_panels_are_decoded_alone(generator):
    weight = codes(67, 70, 32, generator)
    whole = decode(weight, torch.float32)
    *rows, column_scale = weight.tensors
    for first, last, n in ((0, 1, 16), (1, 3, 32), (2, 5, 35)):
        tensors = (*(t[first:last] for t in rows), column_scale)
        part = ops.sparse24_dual_shift_dequantize(*tensors, n=n, group_size=32, dtype=torch.float32)
        assert torch.equal(part, whole[16 * first : 16 * first + n])


def test_opcheck_and_one_graph(generator):
    weight = codes(5, 70, 64, generator)
    overload = torch.ops.prism.sparse24_dual_shift_dequantize.default
    torch.library.opcheck(overload, (*weight.tensors, weight.n, weight.group_size, torch.bfloat16))
    compiled = torch.compile(lambda: decode(weight, torch.float32), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(), decode(weight, torch.float32))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"codes": torch.zeros(1, 1, 32, 2)}, TypeError, "codes must have dtype int32, got torch.float32"),
        ({"n": 17}, ValueError, r"codes must have shape \[2, 1, 32, 2\], got \[1, 1, 32, 2\]"),
        ({"columns": torch.zeros(1, 2, 32).int()}, ValueError, r"columns must have shape \[1, 1, 32\]"),
        ({"zero": torch.zeros(1, 1, 16).byte()}, ValueError, r"zero must have shape \[1, 1, 8\], got \[1, 1, 16\]"),
        ({"column_scale": torch.ones(64)}, TypeError, "column_scale must have dtype bfloat16, got torch.float32"),
        ({"group_size": 48}, ValueError, "group_size must be a multiple of 32, got 48"),
        ({"dtype": torch.float64}, ValueError, "dtype must be float32, float16 or bfloat16, got torch.float64"),
    ],
)
def test_errors_name_argument_rule_and_value(changes, error, message):
    good = {
        "codes": torch.zeros(1, 1, 32, 2, dtype=torch.int32),
        "columns": torch.zeros(1, 1, 32, dtype=torch.int32),
        "scale": torch.ones(1, 1, 16).bfloat16(),
        "zero": torch.zeros(1, 1, 8, dtype=torch.uint8),
        "column_scale": torch.ones(64).bfloat16(),
        "n": 2,
        "group_size": 64,
        "dtype": torch.float32,
    }
    with pytest.raises(error, match=f"sparse24_dual_shift_dequantize: {message}"):
        ops.sparse24_dual_shift_dequantize(**(good | changes))
