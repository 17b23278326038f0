"""sparse24_linear against the float64 reference, and the argument contract."""

import pytest
import torch

from prism_kernels import ops
from prism_kernels.testing import LINEAR_PROBLEMS, assert_matches
from sparse24_problems import DTYPES, MORE_PROBLEMS, values


def exact(x, weight, bias=None):
    y = x.double() @ weight.double().T
    return y if bias is None else y + bias.double()


def test_literal():
    weight = torch.zeros(17, 6)
    weight[0, 0], weight[0, 3], weight[1, 5], weight[16, 2] = 1.0, 2.0, -3.0, 8.0
    packed = ops.sparse24_pack(weight.half(), weight != 0)
    x = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]]).half()
    expected = torch.ones(1, 17).half()
    expected[0, 0], expected[0, 1], expected[0, 16] = 18.0, -95.0, 33.0
    assert torch.equal(ops.sparse24_linear(x, *packed, torch.ones(17).half(), n=17), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_matches_float64(poison, generator, dtype):
    for problem in (*LINEAR_PROBLEMS, *MORE_PROBLEMS):
        x = torch.randn(problem.m, problem.k, generator=generator).to(dtype)
        bias = torch.randn(problem.n, generator=generator).to(dtype)
        weight, mask = values(problem.n, problem.k, dtype, generator)
        packed = ops.sparse24_pack(weight, mask)
        for b in (None, bias):
            y = ops.sparse24_linear(x, *packed, b, n=problem.n)
            assert y.dtype == dtype
            assert_matches(y, exact(x, weight, b), problem.k)


def test_shapes_and_strides(generator):
    weight, mask = values(9, 70, torch.bfloat16, generator)
    packed = ops.sparse24_pack(weight, mask)
    for x in (
        torch.randn(70, generator=generator),
        torch.randn(2, 3, 70, generator=generator),
        torch.randn(70, 5, generator=generator).T,
        torch.randn(2, 0, 70, generator=generator),
    ):
        y = ops.sparse24_linear(x.bfloat16(), *packed, n=9)
        assert y.shape == (*x.shape[:-1], 9)
        assert_matches(y.reshape(-1, 9), exact(x.bfloat16().reshape(-1, 70), weight), 70)


def test_gradients(generator):
    weight, mask = values(5, 70, torch.float16, generator)
    packed = ops.sparse24_pack(weight, mask)
    x = torch.randn(2, 3, 70, generator=generator).half().requires_grad_()
    bias = torch.randn(5, generator=generator).half().requires_grad_()
    y = ops.sparse24_linear(x, *packed, bias, n=5)
    grad = torch.randn(y.shape, generator=generator).half()
    y.backward(grad)
    assert_matches(x.grad, grad.double() @ weight.double(), 5)
    assert_matches(bias.grad, grad.double().sum((0, 1)), 6)


@pytest.mark.parametrize("m", [0, 1, 3])
def test_opcheck(generator, m):
    weight, mask = values(5, 70, torch.bfloat16, generator)
    packed = ops.sparse24_pack(weight, mask)
    x = torch.randn(m, 70, generator=generator).bfloat16().requires_grad_()
    for bias in (torch.randn(5, generator=generator).bfloat16().requires_grad_(), None):
        torch.library.opcheck(torch.ops.prism.sparse24_linear.default, (x, *packed, bias, 5))


def test_compiles_to_one_graph(generator):
    weight, mask = values(5, 130, torch.bfloat16, generator)
    packed = ops.sparse24_pack(weight, mask)
    x = torch.randn(2, 3, 130, generator=generator).bfloat16()

    def call(x, *packed):
        return ops.sparse24_linear(x, *packed, n=5)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, *packed), call(x, *packed))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": torch.ones(1, 64)}, TypeError, "x must have dtype float16 or bfloat16, got torch.float32"),
        ({"x": torch.tensor(1.0).half()}, ValueError, "x must have at least 1 dimension, got 0"),
        (
            {"x": torch.ones(1, 65).half()},
            ValueError,
            r"values must have shape \[1, 2, 2, 32, 8\], got \[1, 1, 2, 32, 8\]",
        ),
        ({"x": torch.ones(1, 64).bfloat16()}, TypeError, "values must have dtype bfloat16, got torch.float16"),
        ({"columns": torch.zeros(1, 1, 32)}, TypeError, "columns must have dtype int32, got torch.float32"),
        ({"bias": torch.ones(2)}, TypeError, "bias must have dtype float16, got torch.float32"),
        ({"n": -1}, ValueError, "n must be at least 0, got -1"),
    ],
)
def test_errors_name_argument_rule_and_value(changes, error, message):
    good = {
        "x": torch.ones(1, 64).half(),
        "values": torch.zeros(1, 1, 2, 32, 8).half(),
        "columns": torch.zeros(1, 1, 32, dtype=torch.int32),
        "n": 2,
    }
    with pytest.raises(error, match=f"sparse24_linear: {message}"):
        ops.sparse24_linear(**(good | changes))
