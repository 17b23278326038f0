"""topk_mask: literal, reference, contract and poison tests under every instruction set."""

import functools

import pytest
import torch

from prism_kernels import ops
from prism_kernels.reference.topk_mask import topk_mask as reference

SHAPES = [(1, 1), (3, 7), (5, 63), (4, 64), (2, 65), (17, 130), (0, 16), (3, 0), (9, 1009), (1, 5000), (200, 3)]


def keeps(shape, scope):
    """0, 1, odd ones in between and all, as far as they differ."""
    size = shape[1] if scope == "row" else shape[0] * shape[1]
    return sorted({keep for keep in (0, 1, size // 3, size // 2, size - 1, size) if 0 <= keep <= size})


def test_literal(isa):
    scores = torch.tensor([[3.0, 1.0, 2.0, 4.0], [5.0, 5.0, 5.0, 5.0], [float("nan"), 0.0, -0.0, float("-inf")]])
    rows = torch.tensor([[1, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 0]]).bool()
    matrix = torch.tensor([[1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]]).bool()
    assert torch.equal(ops.topk_mask(scores, 2, "row"), rows)
    assert torch.equal(ops.topk_mask(scores, 6, "matrix"), matrix)
    isa.assert_served("topk_mask", best="avx512")


def test_special_values_are_ordered(isa):
    inf, nan, tiny = float("inf"), float("nan"), 1e-45
    ordered = torch.tensor([[nan, -inf, -nan, -3e38, -1.0, -tiny, 0.0, -0.0, 0.0, tiny, 1.0, 3e38, inf]])
    k = ordered.shape[1]
    for keep in range(k + 1):  # written in the order of their ranks, so that each mask is a suffix
        assert torch.equal(ops.topk_mask(ordered, keep, "row")[0], torch.arange(k) >= k - keep), keep


@pytest.mark.parametrize("scope", ["row", "matrix"])
def test_matches_reference(isa, poison, generator, scope):
    for shape in SHAPES:
        ties = torch.randint(-3, 4, shape, generator=generator).float()  # few values: many ties
        ties[torch.rand(shape, generator=generator) < 0.1] = float("nan")
        ties[torch.rand(shape, generator=generator) < 0.1] = -0.0
        for scores in (ties, torch.randn(shape, generator=generator), torch.zeros(shape)):
            for keep in keeps(shape, scope):
                mask = ops.topk_mask(scores, keep, scope)
                assert torch.equal(mask, reference(scores, keep, scope)), (shape, keep)
                counts = mask.sum(1) if scope == "row" else mask.sum()
                assert bool((counts == keep).all()), (shape, keep)


@functools.cache
def large_case():
    """More scores than one task of the kernel takes, with ties that reach across tasks."""
    scores = torch.randint(-3, 4, (1100, 2003), generator=torch.Generator().manual_seed(1)).float()
    return scores, [(keep, reference(scores, keep, "matrix")) for keep in (1, 900_000, 1_111_111, 2_203_299)]


def test_large_matrix(isa):
    scores, expected = large_case()
    for keep, mask in expected:
        assert torch.equal(ops.topk_mask(scores, keep, "matrix"), mask), keep


@pytest.mark.parametrize("scope", ["row", "matrix"])
def test_half_scores_and_strides(isa, generator, scope):
    for dtype in (torch.bfloat16, torch.float16):
        scores = torch.randn(64, 12, generator=generator).to(dtype).T[::2]
        assert torch.equal(ops.topk_mask(scores, 5, scope), reference(scores.float(), 5, scope))


def test_does_not_depend_on_the_number_of_threads(isa, generator):
    scores = torch.randint(-50, 50, (301, 257), generator=generator).float()
    threads = torch.get_num_threads()
    try:
        masks = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            masks.append([ops.topk_mask(scores, 100, "row"), ops.topk_mask(scores, 30_001, "matrix")])
    finally:
        torch.set_num_threads(threads)
    for row, matrix in masks[1:]:
        assert torch.equal(row, masks[0][0])
        assert torch.equal(matrix, masks[0][1])


def test_opcheck():
    for shape in ((4, 64), (3, 7), (0, 8)):
        for scope in ("row", "matrix"):
            torch.library.opcheck(torch.ops.prism.topk_mask.default, (torch.randn(shape), 0, scope))


def test_compiles_to_one_graph():
    scores = torch.randn(4, 64)
    compiled = torch.compile(lambda s: ops.topk_mask(s, 20, "matrix"), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(scores), reference(scores, 20, "matrix"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(4), 2, "row"), ValueError, r"topk_mask: scores must have shape \[\*, \*\], got \[4\]"),
        ((torch.zeros(2, 4, dtype=torch.int32), 2, "row"), TypeError, "scores must have dtype float32 .*int32"),
        ((torch.zeros(2, 4), 5, "row"), ValueError, "topk_mask: keep must be between 0 and 4, got 5"),
        ((torch.zeros(2, 4), 9, "matrix"), ValueError, "topk_mask: keep must be between 0 and 8, got 9"),
        ((torch.zeros(2, 4), -1, "matrix"), ValueError, "topk_mask: keep must be between 0 and 8, got -1"),
        ((torch.zeros(2, 4), 1, "column"), ValueError, "topk_mask: scope must be 'row' or 'matrix', got 'column'"),
        (([[1.0]], 1, "row"), TypeError, "topk_mask: scores must be a tensor, got list"),
    ],
)
def test_errors_name_argument_rule_and_value(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.topk_mask(*arguments)
