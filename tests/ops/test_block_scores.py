"""block_scores: literal, reference, contract and poison tests under every instruction set."""

import pytest
import torch

from prism_kernels import ops
from prism_kernels.reference.block_scores import block_scores as reference
from prism_kernels.testing import assert_matches

SHAPES = [(1, 1), (3, 7), (16, 16), (17, 33), (40, 70), (0, 16), (3, 0), (9, 1009)]


def test_literal(isa):
    scores = torch.zeros(17, 20)
    scores[0, 0], scores[15, 15], scores[3, 16], scores[16, 0] = 1.0, 2.0, 4.0, 8.0
    assert ops.block_scores(scores).tolist() == [[3.0, 4.0], [8.0, 0.0]]
    isa.assert_served("block_scores", best="avx512")
    mask = torch.ones(17, 20, dtype=torch.bool)
    mask[0, 0] = False
    assert ops.block_scores(scores, mask).tolist() == [[2.0, 4.0], [8.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_matches_float64(isa, poison, generator, dtype):
    for n, k in SHAPES:
        scores = torch.rand(n, k, generator=generator).to(dtype)
        mask = torch.rand(n, k, generator=generator) < 0.5
        for kept in (None, mask):
            assert_matches(ops.block_scores(scores, kept), reference(scores.double(), kept), 256)


def test_only_what_is_kept_counts(isa):
    scores = torch.full((20, 20), torch.nan)
    scores[::2] = 1.0
    assert ops.block_scores(scores, scores == 1).tolist() == [[128.0, 32.0], [32.0, 8.0]]
    assert ops.block_scores(scores).isnan().all()


def test_strides_and_threads(isa, generator):
    scores = torch.rand(70, 90, generator=generator).T
    expected = ops.block_scores(scores.contiguous())
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(ops.block_scores(scores), expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("shape", [(20, 30), (0, 8)], ids=str)
def test_opcheck(shape):
    torch.library.opcheck(torch.ops.prism.block_scores.default, (torch.randn(shape), None))
    torch.library.opcheck(torch.ops.prism.block_scores.default, (torch.randn(shape), torch.rand(shape) < 0.5))


def test_compiles_to_one_graph():
    scores = torch.rand(20, 30)
    compiled = torch.compile(lambda s: ops.block_scores(s), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(scores), ops.block_scores(scores))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(4),), ValueError, r"scores must have shape \[\*, \*\], got \[4\]"),
        ((torch.zeros(2, 4).int(),), TypeError, "scores must have dtype float32 .*, got torch.int32"),
        ((torch.zeros(2, 4), torch.zeros(2, 4)), TypeError, "mask must have dtype bool, got torch.float32"),
        ((torch.zeros(2, 4), torch.zeros(4, 2).bool()), ValueError, r"mask must have shape \[2, 4\], got \[4, 2\]"),
    ],
)
def test_errors_name_argument_rule_and_value(arguments, error, message):
    with pytest.raises(error, match=f"block_scores: {message}"):
        ops.block_scores(*arguments)
