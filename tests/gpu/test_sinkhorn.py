"""sinkhorn on the GPU against the float64 reference on the CPU."""

import pytest
import torch

from prism_kernels import dispatch, ops
from prism_kernels.reference.sinkhorn import sinkhorn as reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]

VARIANTS = ("sinq", "prism", "rms")
#: Strips, odd widths, every number of vectors per lane, and windows.
SHAPES = [
    (1, 1, 1),
    (2, 3, 7),
    (5, 300, 64),
    (1, 130, 129),
    (2, 67, 1009),
    (1, 40, 4200),
    (1, 40, 9000),
    (1, 20, 17000),
]


def problem(shape, generator, density=0.5):
    b, n, k = shape
    rows, columns = torch.randn(b, n, 1, generator=generator), torch.randn(b, 1, k, generator=generator)
    uneven = (0.5 * (rows + columns)).exp()
    mask = torch.rand(shape, generator=generator) < density
    if min(n, k) > 5:
        mask[:, 2], mask[..., 3] = False, False
    return torch.randn(shape, generator=generator) * uneven, mask


def gap(actual, expected):
    return max(float((a.cpu().double() / e.double()).log().abs().max()) for a, e in zip(actual, expected, strict=True))


def assert_close(weight, mask, variant, iterations):
    kept = None if mask is None else mask.cuda()
    actual = ops.sinkhorn(weight.cuda(), kept, variant=variant, iterations=iterations)
    assert all(factor.is_cuda and factor.dtype == torch.float32 for factor in actual)
    expected = reference(weight.double(), mask, variant, iterations)
    if variant == "sinq" and gap(actual, expected) > 1e-4:  # two iterates equally even: rounding may choose the other
        before = reference(weight.double(), mask, variant, iterations - 1)
        assert gap(actual, before) <= 1e-4, weight.shape
    else:
        assert gap(actual, expected) <= 1e-4, (weight.shape, variant)


def test_has_a_compiled_kernel():
    assert dispatch.has_compiled("sinkhorn", "cuda")


def test_sanitized_odd_shape(generator):
    weight, mask = problem((2, 37, 129), generator)
    for variant in VARIANTS:
        assert_close(weight.bfloat16(), mask, variant, 3)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_float64_reference(generator, poison, shape, variant):
    weight, mask = problem(shape, generator)
    for dtype in (torch.float32, torch.bfloat16):
        for kept in (mask, None):
            assert_close(weight.to(dtype), kept, variant, 4)
    assert_close(weight, mask, variant, 0)
    assert_close(weight.masked_fill(~mask, torch.nan), mask, variant, 2)  # pruned values are never looked at
    assert_close(weight * 1e-25, mask, variant, 2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_is_deterministic_captured_and_compiled(generator, variant):
    weight, mask = (t.cuda() for t in problem((3, 200, 256), generator))
    expected = ops.sinkhorn(weight, mask, variant=variant)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.sinkhorn(weight, mask, variant=variant)
    graph.replay()
    compiled = torch.compile(lambda w, m: ops.sinkhorn(w, m, variant=variant), fullgraph=True)(weight, mask)
    for result in (ops.sinkhorn(weight, mask, variant=variant), captured, compiled):
        assert all(torch.equal(a, e) for a, e in zip(result, expected, strict=True))
