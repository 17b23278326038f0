"""sparse24_dual_shift_linear on the device against the float64 reference, with the shapes of the op's own tests."""

import pytest
import torch

from prism_kernels import ops
from prism_kernels.testing import LINEAR_PROBLEMS, assert_matches
from sparse24_problems import DTYPES, GROUPS, MORE_PROBLEMS, TOKENS, Codes, codes

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


class Problem:
    """A weight on the device, and what it multiplies to."""

    def __init__(self, n: int, k: int, group_size: int, generator: torch.Generator) -> None:
        self.weight: Codes = codes(n, k, group_size, generator)
        self.tensors = tuple(t.cuda() for t in self.weight.tensors)
        self.options = {"n": n, "group_size": group_size}

    def linear(self, x, bias=None):
        return ops.sparse24_dual_shift_linear(x, *self.tensors, bias, **self.options)

    def check(self, x, bias=None):
        y = self.linear(x.cuda(), None if bias is None else bias.cuda())
        assert y.dtype == x.dtype
        assert_matches(y.cpu(), self.weight.exact(x, bias), x.shape[-1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_matches_float64(poison, generator, dtype):
    for problem in (*LINEAR_PROBLEMS, *MORE_PROBLEMS):
        x = torch.randn(problem.m, problem.k, generator=generator).to(dtype)
        bias = torch.randn(problem.n, generator=generator).to(dtype)
        for i, group_size in enumerate(GROUPS):
            Problem(problem.n, problem.k, group_size, generator).check(x, bias if i % 2 else None)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_number_of_tokens(poison, generator, dtype):
    problem = Problem(300, 1096, 64, generator)
    x = torch.randn(max(TOKENS), 1096, generator=generator).to(dtype)
    for m in TOKENS:
        problem.check(x[:m])


def test_large(generator):
    problem = Problem(4096, 4096, 64, generator)
    x = torch.randn(64, 4096, generator=generator).bfloat16()
    for m in (1, 8, 16, 64):
        problem.check(x[:m])


def test_sanitized_odd_shape(generator):
    problem = Problem(33, 200, 32, generator)
    for m in (3, 17):
        problem.check(torch.randn(m, 200, generator=generator).bfloat16())


@pytest.mark.parametrize("m", [1, 20])
def test_captures_compiles_and_repeats(generator, m):
    problem = Problem(300, 2056, 64, generator)
    x = torch.randn(m, 2056, generator=generator).bfloat16().cuda()
    expected = problem.linear(x)
    assert torch.equal(problem.linear(x), expected)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = problem.linear(x)
    graph.replay()
    assert torch.equal(captured, expected)
    assert torch.equal(torch.compile(problem.linear, fullgraph=True)(x), expected)


def test_gradients(generator):
    problem = Problem(33, 200, 64, generator)
    x = torch.randn(5, 200, generator=generator).half().cuda().requires_grad_()
    y = problem.linear(x)
    grad = torch.randn(5, 33, generator=generator).half()
    y.backward(grad.cuda())
    weight = (problem.weight.unscaled * problem.weight.column_scale.double()).half()
    assert_matches(x.grad.cpu(), grad.double() @ weight.double(), 33)
