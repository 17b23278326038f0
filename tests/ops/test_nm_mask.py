"""nm_mask: literal, reference, contract and poison tests under every instruction set."""

import pytest
import torch

from prism_kernels import ops
from prism_kernels.reference.nm_mask import nm_mask as reference

SHAPES = [(1, 1), (3, 7), (5, 63), (4, 64), (2, 65), (17, 130), (0, 16), (3, 0), (9, 1009)]
PATTERNS = [
    (2, 4),
    (1, 4),
    (3, 4),
    (4, 8),
    (16, 32),
    (1, 2),
    (0, 4),
    (4, 4),
    (3, 5),
    (5, 16),
    (1, 1),
]


def test_literal(isa):
    scores = torch.tensor([[3.0, 1.0, 2.0, 4.0], [5.0, 5.0, 5.0, 5.0], [float("nan"), 0.0, -1.0, float("inf")]])
    expected = torch.tensor([[1, 0, 0, 1], [0, 0, 1, 1], [0, 1, 0, 1]]).bool()
    assert torch.equal(ops.nm_mask(scores, 2, 4), expected)
    isa.assert_served("nm_mask", best="avx512")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_reference(isa, poison, generator, shape):
    scores = torch.randint(-3, 4, shape, generator=generator).float()  # few values: many ties
    scores[torch.rand(shape, generator=generator) < 0.1] = float("nan")
    for pattern in PATTERNS:
        assert torch.equal(ops.nm_mask(scores, *pattern), reference(scores, *pattern)), pattern


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_scores_and_strides(isa, generator, dtype):
    scores = torch.randn(64, 12, generator=generator).to(dtype).T
    assert torch.equal(ops.nm_mask(scores, 2, 4), reference(scores.float(), 2, 4))


@pytest.mark.parametrize("shape", [(4, 64), (3, 7), (0, 8)], ids=str)
def test_opcheck(shape):
    torch.library.opcheck(torch.ops.prism.nm_mask.default, (torch.randn(shape), 2, 4))


def test_compiles_to_one_graph():
    scores = torch.randn(4, 64)
    compiled = torch.compile(lambda s: ops.nm_mask(s, 2, 4), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(scores), reference(scores, 2, 4))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (torch.zeros(4), 2, 4),
            ValueError,
            r"nm_mask: scores must have shape \[\*, \*\], got \[4\]",
        ),
        (
            (torch.zeros(2, 4, dtype=torch.int32), 2, 4),
            TypeError,
            "nm_mask: scores must have dtype float32 .*int32",
        ),
        ((torch.zeros(2, 4), 5, 4), ValueError, "nm_mask: n_keep must be between 0 and m=4, got 5"),
        ((torch.zeros(2, 4), 0, 0), ValueError, "nm_mask: m must be at least 1, got 0"),
        (([[1.0]], 1, 1), TypeError, "nm_mask: scores must be a tensor, got list"),
    ],
)
def test_errors_name_argument_rule_and_value(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.nm_mask(*arguments)
