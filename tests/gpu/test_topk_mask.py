"""topk_mask on the GPU against the reference on the CPU."""

import pytest
import torch

from prism_kernels import dispatch, ops
from prism_kernels.reference.topk_mask import topk_mask as reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]

SHAPES = [(1, 1), (3, 7), (5, 63), (4, 64), (2, 65), (17, 130), (0, 16), (3, 0), (9, 1009), (1, 5000), (200, 3)]


def check(scores, keep, scope):
    mask = ops.topk_mask(scores.cuda(), keep, scope)
    assert mask.is_cuda
    assert torch.equal(mask.cpu(), reference(scores, keep, scope)), (list(scores.shape), keep, scope)


def test_has_a_compiled_kernel():
    assert dispatch.has_compiled("topk_mask", "cuda")


@pytest.mark.parametrize("scope", ["row", "matrix"])
def test_sanitized_odd_shape(generator, scope):
    check(torch.randint(-3, 4, (5, 263), generator=generator).float(), 100, scope)


@pytest.mark.parametrize("scope", ["row", "matrix"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_reference(poison, generator, shape, scope):
    ties = torch.randint(-3, 4, shape, generator=generator).float()
    ties[torch.rand(shape, generator=generator) < 0.1] = float("nan")
    ties[torch.rand(shape, generator=generator) < 0.1] = -0.0
    size = shape[1] if scope == "row" else shape[0] * shape[1]
    for scores in (ties, torch.randn(shape, generator=generator), torch.zeros(shape)):
        for keep in sorted({keep for keep in (0, 1, size // 3, size // 2, size - 1, size) if 0 <= keep <= size}):
            check(scores, keep, scope)


def test_large_matrix_with_ties_across_blocks(generator):
    scores = torch.randint(-3, 4, (1100, 2003), generator=generator).float()
    for keep in (1, 900_000, 1_111_111, 2_203_299):
        check(scores, keep, "matrix")


def test_half_scores(generator):
    for dtype in (torch.bfloat16, torch.float16):
        scores = torch.randn(64, 12, generator=generator).to(dtype)
        assert torch.equal(ops.topk_mask(scores.cuda(), 5, "row").cpu(), reference(scores.float(), 5, "row"))


@pytest.mark.parametrize("scope", ["row", "matrix"])
def test_is_captured_and_compiled(generator, scope):
    scores = torch.randn(67, 129, generator=generator).cuda()
    expected = ops.topk_mask(scores, 40, scope)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.topk_mask(scores, 40, scope)
    graph.replay()
    assert torch.equal(captured, expected)
    assert torch.equal(torch.compile(lambda s: ops.topk_mask(s, 40, scope), fullgraph=True)(scores), expected)
