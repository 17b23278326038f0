"""sparse24_dual_shift_linear against the float64 reference, and the argument contract."""

import pytest
import torch

from prism_kernels import ops
from prism_kernels.reference.panels import pack_zero, rows_to_panels
from prism_kernels.testing import LINEAR_PROBLEMS, assert_matches
from sparse24_problems import DTYPES, GROUPS, MORE_PROBLEMS, codes


def linear(x, weight, bias=None):
    return ops.sparse24_dual_shift_linear(x, *weight.tensors, bias, n=weight.n, group_size=weight.group_size)


def test_literal():
    steps, mask = torch.zeros(17, 4, dtype=torch.uint8), torch.zeros(17, 4, dtype=torch.bool)
    steps[0], mask[0] = torch.tensor([9, 3, 12, 0]), torch.tensor([False, True, True, False])
    steps[1:], mask[1:, :2] = 7, True
    scale, zero = torch.ones(17, 1).bfloat16(), torch.full((17, 1), 7, dtype=torch.uint8)
    scale[0], zero[0], steps[16, 0] = 0.5, 5, 2
    column_scale = torch.tensor([1.0, 4.0, 0.25, 1.0]).bfloat16()
    tensors = (*ops.sparse24_pack(steps, mask), rows_to_panels(scale), pack_zero(zero, 4), column_scale)
    x = torch.tensor([[100.0, 1.0, 8.0, 1000.0]])
    expected = torch.ones(1, 17)
    expected[0, 0] += (3 - 5) * 0.5 * 4.0 + (12 - 5) * 0.5 * 0.25 * 8.0
    expected[0, 16] += (2 - 7) * 100.0
    for dtype in DTYPES:
        bias = torch.ones(17).to(dtype)
        y = ops.sparse24_dual_shift_linear(x.to(dtype), *tensors, bias, n=17, group_size=32)
        assert torch.equal(y, expected.to(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_matches_float64(poison, generator, dtype):
    for problem in (*LINEAR_PROBLEMS, *MORE_PROBLEMS):
        x = torch.randn(problem.m, problem.k, generator=generator).to(dtype)
        bias = torch.randn(problem.n, generator=generator).to(dtype)
        for i, group_size in enumerate(GROUPS):
            weight = codes(problem.n, problem.k, group_size, generator)
            b = bias if i % 2 else None
            y = linear(x, weight, b)
            assert y.dtype == dtype
            assert_matches(y, weight.exact(x, b), problem.k)


def test_gradients(generator):
    weight = codes(5, 70, 32, generator)
    x = torch.randn(2, 3, 70, generator=generator).half().requires_grad_()
    bias = torch.randn(5, generator=generator).half().requires_grad_()
    y = linear(x, weight, bias)
    grad = torch.randn(y.shape, generator=generator).half()
    y.backward(grad)
    decoded = (weight.unscaled * weight.column_scale.double()).half()
    assert_matches(x.grad, grad.double() @ decoded.double(), 5)
    assert_matches(bias.grad, grad.double().sum((0, 1)), 6)


@pytest.mark.parametrize("m", [0, 1, 3])
def test_opcheck(generator, m):
    weight = codes(5, 70, 64, generator)
    x = torch.randn(m, 70, generator=generator).bfloat16().requires_grad_()
    for bias in (torch.randn(5, generator=generator).bfloat16().requires_grad_(), None):
        arguments = (x, *weight.tensors, bias, weight.n, weight.group_size)
        torch.library.opcheck(torch.ops.prism.sparse24_dual_shift_linear.default, arguments)


def test_compiles_to_one_graph(generator):
    weight = codes(5, 130, 64, generator)
    x = torch.randn(2, 3, 130, generator=generator).bfloat16()

    def call(x, *tensors):
        return ops.sparse24_dual_shift_linear(x, *tensors, n=5, group_size=64)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, *weight.tensors), linear(x, weight))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": torch.ones(1, 64)}, TypeError, "x must have dtype float16 or bfloat16, got torch.float32"),
        ({"x": torch.ones(1, 65).half()}, ValueError, r"codes must have shape \[1, 2, 32, 2\], got \[1, 1, 32, 2\]"),
        ({"codes": torch.zeros(1, 1, 32, 2)}, TypeError, "codes must have dtype int32, got torch.float32"),
        ({"zero": torch.zeros(1, 1, 16).byte()}, ValueError, r"zero must have shape \[1, 1, 8\], got \[1, 1, 16\]"),
        ({"group_size": 48}, ValueError, "group_size must be a multiple of 32, got 48"),
        ({"group_size": 0}, ValueError, "group_size must be a multiple of 32, got 0"),
        ({"bias": torch.ones(3).half()}, ValueError, r"bias must have shape \[2\], got \[3\]"),
    ],
)
def test_errors_name_argument_rule_and_value(changes, error, message):
    good = {
        "x": torch.ones(1, 64).half(),
        "codes": torch.zeros(1, 1, 32, 2, dtype=torch.int32),
        "columns": torch.zeros(1, 1, 32, dtype=torch.int32),
        "scale": torch.ones(1, 1, 16).bfloat16(),
        "zero": torch.zeros(1, 1, 8, dtype=torch.uint8),
        "column_scale": torch.ones(64).bfloat16(),
        "n": 2,
        "group_size": 64,
    }
    with pytest.raises(error, match=f"sparse24_dual_shift_linear: {message}"):
        ops.sparse24_dual_shift_linear(**(good | changes))
