"""nm_mask in Triton: the reference's masks, ties, NaN and short last groups included."""

import torch

from prism_kernels.reference.nm_mask import nm_mask as reference
from prism_kernels.triton.nm_mask import nm_mask


def test_matches_reference(poison, generator):
    for shape in [(1, 1), (3, 7), (5, 63), (17, 130), (0, 16), (3, 0), (1, 1009)]:
        scores = torch.randint(-3, 4, shape, generator=generator).float()  # few values: many ties
        scores[torch.rand(shape, generator=generator) < 0.1] = float("nan")
        for pattern in [(2, 4), (4, 8), (0, 4), (3, 5), (1, 1)]:
            assert torch.equal(nm_mask(scores, *pattern), reference(scores, *pattern)), (shape, pattern)
