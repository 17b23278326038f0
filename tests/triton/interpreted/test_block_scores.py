"""block_scores in Triton against the float64 reference."""

import torch

from prism_kernels.reference.block_scores import block_scores as reference
from prism_kernels.testing import assert_matches
from prism_kernels.triton.block_scores import block_scores


def test_matches_reference(poison, generator):
    for shape in [(1, 1), (3, 7), (16, 16), (17, 130), (0, 16), (3, 0), (33, 257)]:
        scores, mask = torch.rand(shape, generator=generator), torch.rand(shape, generator=generator) < 0.5
        assert_matches(block_scores(scores, None), reference(scores.double()), 256)
        scores[~mask] = float("nan")
        assert_matches(block_scores(scores, mask), reference(scores.double(), mask), 256)
