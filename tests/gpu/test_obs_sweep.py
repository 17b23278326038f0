"""obs_sweep on the GPU against the reference on the CPU, bit for bit."""

import itertools

import pytest
import torch

from prism_kernels import dispatch, ops

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]

SHAPES = [(1, 1), (3, 7), (2, 63), (17, 64), (5, 65), (67, 128), (0, 16), (3, 0), (130, 33), (9, 200), (33, 900)]
NAMES = ("compensated", "error", "mask", "codes", "scale", "zero")


def problem(shape, generator):
    n, b = shape
    inputs = torch.randn(2 * b + 3, b, generator=generator, dtype=torch.float64)
    hessian = inputs.T @ inputs / len(inputs) + 0.01 * torch.eye(b, dtype=torch.float64)
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True).contiguous()
    return torch.randn(n, b, generator=generator), factor.float(), torch.rand(n, b, generator=generator) > 0.5


def assert_same(*arguments, **options):
    def moved(value):
        return value.cuda() if isinstance(value, torch.Tensor) else value

    expected = ops.obs_sweep(*arguments, **options)
    actual = ops.obs_sweep(*map(moved, arguments), **{name: moved(value) for name, value in options.items()})
    for name, a, e in zip(NAMES, actual, expected, strict=True):
        assert a.is_cuda and a.dtype == e.dtype, name
        assert torch.equal(a.cpu(), e), (name, list(arguments[0].shape), options)
    return actual


def test_has_a_compiled_kernel():
    assert dispatch.has_compiled("obs_sweep", "cuda")


def test_sanitized_odd_shape(generator):
    weight, factor, mask = problem((33, 65), generator)
    assert_same(weight, factor, mask, bits=4, group_size=16)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_masks_and_grids(generator, poison, shape):
    weight, factor, mask = problem(shape, generator)
    column_scale = torch.rand(shape[1], generator=generator).add(0.5).bfloat16()
    for kept, (n_keep, m) in itertools.product((mask, None), ((0, 0), (2, 4), (3, 5))):
        assert_same(weight, factor, kept, n_keep, m)
        *_, scale, zero = assert_same(weight, factor, kept, n_keep, m, column_scale, bits=4, group_size=16)
        given = {"scale": scale.cpu(), "zero": zero.cpu(), "bits": 4, "group_size": 16}
        assert_same(weight, factor, kept, n_keep, m, column_scale, **given)
        assert_same(weight, factor, kept, n_keep, m, bits=3, group_size=7)


def test_is_captured_and_compiled(generator):
    weight, factor, mask = (t.cuda() for t in problem((67, 128), generator))
    expected = ops.obs_sweep(weight, factor, mask, bits=4, group_size=64)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.obs_sweep(weight, factor, mask, bits=4, group_size=64)
    graph.replay()
    compiled = torch.compile(lambda *t: ops.obs_sweep(*t, bits=4, group_size=64), fullgraph=True)(weight, factor, mask)
    for result in (captured, compiled):
        assert all(torch.equal(a, e) for a, e in zip(result, expected, strict=True))
