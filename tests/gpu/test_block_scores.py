"""block_scores on the GPU against the float64 reference."""

import pytest
import torch

from prism_kernels import dispatch, ops
from prism_kernels.reference.block_scores import block_scores as reference
from prism_kernels.testing import assert_matches

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]

SHAPES = [(1, 1), (3, 7), (16, 16), (17, 33), (40, 70), (0, 16), (3, 0), (9, 1009), (300, 4100)]


def check(scores, mask):
    kept = None if mask is None else mask.cuda()
    assert_matches(ops.block_scores(scores.cuda(), kept).cpu(), reference(scores.double(), mask), 256)


def test_has_a_compiled_kernel():
    assert dispatch.has_compiled("block_scores", "cuda")


def test_sanitized_odd_shape(generator):
    check(torch.rand(37, 85, generator=generator), torch.rand(37, 85, generator=generator) < 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_matches_float64(poison, generator, dtype):
    for n, k in SHAPES:
        scores = torch.rand(n, k, generator=generator).to(dtype)
        for mask in (None, torch.rand(n, k, generator=generator) < 0.5):
            check(scores, mask)


def test_only_what_is_kept_counts():
    scores = torch.full((20, 20), torch.nan, device="cuda")
    scores[::2] = 1.0
    assert ops.block_scores(scores, scores == 1).tolist() == [[128.0, 32.0], [32.0, 8.0]]
    assert bool(ops.block_scores(scores).isnan().all())


def test_is_captured_and_compiled(generator):
    scores = torch.rand(67, 129, generator=generator).cuda()
    mask = scores < 0.5
    expected = ops.block_scores(scores, mask)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = ops.block_scores(scores, mask)
    graph.replay()
    assert torch.equal(captured, expected)
    assert torch.equal(torch.compile(ops.block_scores, fullgraph=True)(scores, mask), expected)
