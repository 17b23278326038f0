"""topk_mask in Triton: the reference's masks, ties and special values included, within and across chunks."""

import pytest
import torch

from prism_kernels.reference.topk_mask import topk_mask as reference
from prism_kernels.triton import topk_mask as module
from prism_kernels.triton.topk_mask import topk_mask


@pytest.fixture(params=[4096, 64], ids=["one chunk", "many chunks"])
def tile(request, monkeypatch):
    monkeypatch.setattr(module, "_TILE", request.param)


@pytest.mark.parametrize("scope", ["row", "matrix"])
def test_matches_reference(poison, generator, tile, scope):
    for shape in [(1, 1), (3, 7), (0, 16), (3, 0), (1, 333)]:
        ties = torch.randint(-3, 4, shape, generator=generator).float()  # few values: many ties
        ties[torch.rand(shape, generator=generator) < 0.1] = float("nan")
        ties[torch.rand(shape, generator=generator) < 0.1] = -0.0
        size = shape[1] if scope == "row" else shape[0] * shape[1]
        for keep in sorted({keep for keep in (0, size // 3, size) if 0 <= keep <= size}):
            for scores in (ties, torch.randn(shape, generator=generator))[: 1 + keep % 2]:
                assert torch.equal(topk_mask(scores, keep, scope), reference(scores, keep, scope)), (shape, keep)


def test_special_values_are_ordered():
    inf, nan, tiny = float("inf"), float("nan"), 1e-45
    ordered = torch.tensor([[nan, -inf, -nan, -3e38, -1.0, -tiny, 0.0, -0.0, 0.0, tiny, 1.0, 3e38, inf]])
    k = ordered.shape[1]
    for keep in range(k + 1):  # written in the order of their ranks, so that each mask is a suffix
        assert torch.equal(topk_mask(ordered, keep, "row")[0], torch.arange(k) >= k - keep), keep
