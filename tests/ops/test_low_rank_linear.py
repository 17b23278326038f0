"""low_rank_linear against the float64 reference, under every instruction set."""

import pytest
import torch

from bitmap_problems import FLOATS
from prism_kernels import ops
from prism_kernels.testing import LINEAR_PROBLEMS, assert_matches


def factors(n, k, rank, dtype, generator):
    a = torch.randn(rank, k, generator=generator) / max(k, 1) ** 0.5
    return a.to(dtype), torch.randn(n, rank, generator=generator).to(dtype)


def exact(x, a, b, bias=None):
    y = x.double() @ a.double().T @ b.double().T
    return y if bias is None else y + bias.double()


def test_literal(isa):
    a = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
    b = torch.tensor([[1.0, 1.0], [0.0, -1.0], [2.0, 0.0], [0.0, 0.5]])
    x = torch.tensor([[1.0, 2.0, 3.0]])
    assert ops.low_rank_linear(x, a, b).tolist() == [[9.0, -2.0, 14.0, 1.0]]
    isa.assert_served("low_rank_linear", best="avx512")
    y = ops.low_rank_linear(x[0].bfloat16(), a.half(), b.bfloat16(), torch.ones(4).bfloat16())
    assert y.tolist() == [10.0, -1.0, 15.0, 2.0]


@pytest.mark.parametrize("x_dtype", FLOATS, ids=str)
def test_matches_float64(isa, poison, generator, x_dtype):
    for problem in LINEAR_PROBLEMS:
        for rank in (1, 7, 40):
            x = torch.rand(problem.m, problem.k, generator=generator).to(x_dtype)
            for dtype in FLOATS:
                a, b = factors(problem.n, problem.k, rank, dtype, generator)
                a = a.abs()  # nothing cancels in the hidden vector, whose error the tolerance does not know
                y = ops.low_rank_linear(x, a, b)
                assert y.dtype == x_dtype
                assert_matches(y, exact(x, a, b), problem.k + rank)


def test_every_number_of_tokens(isa, poison, generator):
    a, b = factors(33, 200, 70, torch.bfloat16, generator)
    bias = torch.ones(33)
    x = torch.randn(11, 200, generator=generator)
    for m in range(12):
        assert_matches(ops.low_rank_linear(x[:m], a, b, bias), exact(x[:m], a, b, bias), 270)


def test_rank_zero_and_no_columns(isa):
    for k, rank in ((5, 0), (0, 3)):
        y = ops.low_rank_linear(torch.ones(2, k), torch.ones(rank, k), torch.ones(4, rank), torch.ones(4))
        assert y.tolist() == [[1.0] * 4] * 2


def test_shapes_and_strides(isa, generator):
    a, b = factors(9, 70, 5, torch.bfloat16, generator)
    for x in (torch.randn(70), torch.randn(2, 3, 70), torch.randn(70, 5).T, torch.randn(2, 0, 70)):
        y = ops.low_rank_linear(x, a, b)
        assert y.shape == (*x.shape[:-1], 9)
        assert_matches(y.reshape(-1, 9), exact(x.reshape(-1, 70), a, b), 75)


def test_thread_count_does_not_matter(isa, generator):
    a, b = factors(301, 3200, 77, torch.bfloat16, generator)
    for m in (1, 3):
        x = torch.randn(m, 3200, generator=generator)
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            one = ops.low_rank_linear(x, a, b)
            torch.set_num_threads(3)
            assert torch.equal(one, ops.low_rank_linear(x, a, b))
        finally:
            torch.set_num_threads(threads)


def test_gradients(generator):
    a, b = factors(20, 70, 6, torch.float32, generator)
    x = torch.randn(2, 3, 70, generator=generator, requires_grad=True)
    bias = torch.randn(20, generator=generator, requires_grad=True)
    y = ops.low_rank_linear(x, a, b, bias)
    grad = torch.randn(y.shape, generator=generator)
    y.backward(grad)
    assert_matches(x.grad, grad.double() @ b.double() @ a.double(), 26)
    assert_matches(bias.grad, grad.double().sum((0, 1)), 6)


@pytest.mark.parametrize("m", [0, 3])
def test_opcheck(generator, m):
    a, b = factors(20, 70, 6, torch.float32, generator)
    x = torch.randn(m, 70, generator=generator, requires_grad=True)
    bias = torch.randn(20, generator=generator, requires_grad=True)
    torch.library.opcheck(torch.ops.prism.low_rank_linear.default, (x, a, b, bias))
    torch.library.opcheck(torch.ops.prism.low_rank_linear.default, (x, a, b, None))


def test_compiles_to_one_graph(generator):
    a, b = factors(20, 70, 6, torch.bfloat16, generator)
    x = torch.randn(2, 3, 70, generator=generator).bfloat16()
    compiled = torch.compile(lambda x: ops.low_rank_linear(x, a, b), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), ops.low_rank_linear(x, a, b))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": torch.ones(1, 3).int()}, TypeError, "x must have dtype float32 .*, got torch.int32"),
        ({"x": torch.tensor(1.0)}, ValueError, "x must have at least 1 dimension, got 0"),
        ({"x": torch.ones(1, 4)}, ValueError, r"a must have shape \[\*, 4\], got \[2, 3\]"),
        ({"b": torch.ones(5, 3)}, ValueError, r"b must have shape \[\*, 2\], got \[5, 3\]"),
        ({"b": torch.ones(5, 2).long()}, TypeError, "b must have dtype float32 .*, got torch.int64"),
        ({"bias": torch.ones(5).half()}, TypeError, "bias must have dtype float32, got torch.float16"),
        ({"bias": torch.ones(3)}, ValueError, r"bias must have shape \[5\], got \[3\]"),
    ],
)
def test_errors_name_argument_rule_and_value(changes, error, message):
    given = {"x": torch.ones(1, 3), "a": torch.ones(2, 3), "b": torch.ones(5, 2)}
    ops.low_rank_linear(**given)
    with pytest.raises(error, match=f"low_rank_linear: {message}"):
        ops.low_rank_linear(**(given | changes))
