"""sinkhorn and column_scale: literal, float64 reference, invariances and contract, under every instruction set."""

import functools
import itertools

import pytest
import torch

from prism_kernels import ops
from prism_kernels.reference.grid import find_grid, round_to_grid
from prism_kernels.reference.sinkhorn import sinkhorn as reference
from prism_kernels.reference.sinkhorn_statistics import live, std

VARIANTS = ("sinq", "prism", "rms")
SHAPES = [
    (1, 1, 1), (2, 3, 7), (1, 5, 63), (3, 64, 64), (1, 2, 65), (1, 17, 130), (0, 4, 4), (1, 0, 16), (2, 3, 0),
    (1, 9, 1009), (1, 300, 33), (1, 131, 2055), (5, 129, 64),
]  # fmt: skip


def problem(shape, generator, density=None):
    """Heavy-tailed weights whose rows and columns have spreads of their own; a mask of some density, or None."""
    b, n, k = shape
    columns = torch.randn(b, 1, k, generator=generator).exp()
    rows = (0.5 * torch.randn(b, n, 1, generator=generator)).exp()
    weight = 0.02 * torch.randn(shape, generator=generator) * columns * rows + 0.002
    mask = None if density is None else torch.rand(shape, generator=generator) < density
    return weight, mask


def imbalance(weight, mask, column, row):
    """Largest over smallest spread of the scaled matrix, in float64."""
    weight = weight.double()
    mask = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask
    scaled = weight / column.double() / row.double()[:, None]
    spread = torch.cat([std(scaled, mask, dim, 1)[live(weight, mask, dim)] for dim in (0, 1)])
    return float(spread.max() / spread.min())


def relative_gap(actual, expected):
    gap = (actual.double() / expected.double()).log().abs()
    return float(gap.max()) if gap.numel() else 0.0


@functools.cache
def cases(variant):
    generator = torch.Generator().manual_seed(1)
    made = []
    for shape, density in itertools.product(SHAPES, (None, 0.5, 0.1)):
        weight, mask = problem(shape, generator, density)
        for iterations in (0, 1, 2, 16):
            made.append((weight, mask, iterations, reference(weight.double(), mask, variant, iterations)))
    return made


def assert_close(weight, mask, variant, actual, expected, limit=1e-4):
    """Factors within `limit` of the float64 reference. Where two iterates of "sinq" are equally balanced, rounding may
    choose the other one; there the chosen one must be as balanced as the reference's."""
    for i in range(len(weight)):
        gap = max(relative_gap(a[i], e[i]) for a, e in zip(actual, expected, strict=True))
        if gap > limit and variant == "sinq":
            kept = None if mask is None else mask[i]
            found, wanted = (imbalance(weight[i], kept, f[0][i], f[1][i]) for f in (actual, expected))
            assert found <= wanted * (1 + 1e-4), (weight.shape, gap, found, wanted)
        else:
            assert gap <= limit, (weight.shape, variant, gap)


def test_literal(isa):
    # std of the rows: sqrt 2 and 3 sqrt 2, of the columns: 2 sqrt 2, 2 sqrt 2, 0 (dead). One scored iterate: the input.
    weight = torch.tensor([[1.0, -1.0, 0.0], [-3.0, 3.0, 0.0]])
    mask = weight != 0
    assert all(bool((f == 1).all()) for f in ops.sinkhorn(weight, mask, variant="sinq", iterations=1))
    # The second one is nearer to even: all went down to sqrt 2, by at most 2.
    column, row = ops.sinkhorn(weight, mask, variant="sinq", iterations=2)
    torch.testing.assert_close(column, torch.tensor([2.0, 2.0, 1.0]), rtol=1e-5, atol=0)
    torch.testing.assert_close(row, torch.tensor([1.0, 2.0]), rtol=1e-5, atol=0)
    # Population std 1 and 3 of the rows; after them, every column has std 1.
    column, row = ops.sinkhorn(weight, mask, variant="prism", iterations=1)
    torch.testing.assert_close(column, torch.ones(3))
    torch.testing.assert_close(row, torch.tensor([1.0, 3.0]))
    column, row = ops.sinkhorn(torch.tensor([[1.0, 4.0], [-1.0, 4.0]]), variant="rms")
    torch.testing.assert_close(column, torch.tensor([0.5, 2.0]))
    assert torch.equal(row, torch.ones(2))
    isa.assert_served("sinkhorn", best="avx512")


@pytest.mark.parametrize("variant", VARIANTS)
def test_matches_float64_reference(isa, poison, variant):
    for weight, mask, iterations, expected in cases(variant):
        actual = ops.sinkhorn(weight, mask, variant=variant, iterations=iterations)
        assert_close(weight, mask, variant, actual, expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_any_magnitude_and_large_means(isa, generator, variant):
    """Squares that float cannot hold, and means that dwarf the spread, cost no accuracy."""
    weight, mask = problem((1, 40, 50), generator, 0.6)
    for changed in (weight * 1e-25, weight * 1e25, weight + 3.0, weight[..., :1] + 1e-3 * weight):
        expected = reference(changed.double(), mask, variant, 8)
        actual = ops.sinkhorn(changed, mask, variant=variant, iterations=8)
        assert_close(changed, mask, variant, actual, expected)


def test_sinq_evens_out_the_spreads(isa, generator):
    for density in (None, 0.5):
        weight, mask = problem((1, 256, 192), generator, density)
        kept = None if mask is None else mask[0]
        column, row = ops.sinkhorn(weight[0], kept, variant="sinq")
        before = imbalance(weight[0], kept, torch.ones(192), torch.ones(256))
        assert imbalance(weight[0], kept, column, row) < before / 3


@pytest.mark.parametrize("variant", VARIANTS)
def test_pruned_values_are_never_looked_at(isa, generator, variant):
    weight, mask = problem((2, 37, 71), generator, 0.6)
    expected = ops.sinkhorn(weight.masked_fill(~mask, 0.0), mask, variant=variant)
    for garbage in (1e6, float("inf"), float("nan")):
        actual = ops.sinkhorn(weight.masked_fill(~mask, garbage), mask, variant=variant)
        assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True)), garbage


@pytest.mark.parametrize("variant", VARIANTS)
def test_dead_rows_and_columns_have_factor_one(isa, generator, variant):
    weight, mask = problem((1, 41, 67), generator, 0.5)
    weight, mask = weight[0], mask[0]
    mask[[0, 7, 40]] = False
    mask[:, [0, 3, 66]] = False
    mask[:, 10] = False
    mask[20, 10] = True  # a single survivor has no spread
    weight[:, 11] = 0.25  # nor have equal entries
    column, row = ops.sinkhorn(weight, mask, variant=variant)
    assert bool((column[[0, 3, 66]] == 1).all())
    assert bool((row[[0, 7, 40]] == 1).all())
    if variant == "sinq":
        assert bool((column[[10, 11]] == 1).all())
    # and they leave the others alone: the same factors without them
    rows, columns = mask.any(1), mask.any(0)
    alone = ops.sinkhorn(weight[rows][:, columns], mask[rows][:, columns], variant=variant)
    assert relative_gap(column[columns], alone[0]) < 1e-4
    assert relative_gap(row[rows], alone[1]) < 1e-4
    none = ops.sinkhorn(weight, torch.zeros_like(mask), variant=variant)
    assert all(bool((f == 1).all()) for f in none)


def codes(weight, group_size, bits):
    groups = weight.reshape(weight.shape[0], -1, group_size)
    scale, zero = find_grid(groups, torch.ones_like(groups, dtype=torch.bool), bits)
    return round_to_grid(groups, scale, zero, bits)


def test_row_factor_is_absorbed_by_the_group_scales(isa, generator):
    """With one strip as wide as a group, dividing rows as well leaves the codes as they are."""
    weight, _ = problem((3, 48, 64), generator)
    column, row = ops.sinkhorn(weight, variant="sinq")
    # powers of two keep the division exact, so that the scales' rounding to bfloat16 is the same one
    row = row.log2().round().exp2()
    for bits in (3, 4):
        for i in range(3):
            by_column = weight[i] / column[i]
            assert torch.equal(codes(by_column, 64, bits), codes(by_column / row[i, :, None], 64, bits))


def test_transposed_sinq_swaps_the_factors(isa, generator):
    weight, mask = problem((2, 70, 40), generator, 0.7)
    column, row = ops.sinkhorn(weight, mask, variant="sinq")
    swapped = ops.sinkhorn(weight.mT, mask.mT, variant="sinq")
    assert relative_gap(swapped[0], row) < 1e-4
    assert relative_gap(swapped[1], column) < 1e-4


@pytest.mark.parametrize("variant", VARIANTS)
def test_does_not_depend_on_the_number_of_threads(isa, generator, variant):
    threads = torch.get_num_threads()
    for shape in ((1, 700, 310), (5, 130, 64)):
        weight, mask = problem(shape, generator, 0.5)
        try:
            torch.set_num_threads(1)
            expected = ops.sinkhorn(weight, mask, variant=variant)
            torch.set_num_threads(2)
            actual = ops.sinkhorn(weight, mask, variant=variant)
        finally:
            torch.set_num_threads(threads)
        assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_dtypes_strides_and_two_dimensions(isa, generator, variant):
    weight, mask = problem((2, 24, 36), generator, 0.5)
    for dtype in (torch.bfloat16, torch.float16):
        rounded = weight.to(dtype)
        expected = ops.sinkhorn(rounded.float(), mask, variant=variant)
        strided = rounded.mT.contiguous().mT, mask.mT.contiguous().mT
        actual = ops.sinkhorn(*strided, variant=variant)
        assert all(f.dtype == torch.float32 for f in actual)
        assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))
        single = ops.sinkhorn(rounded[1], mask[1], variant=variant)
        assert all(torch.equal(a, e[1]) for a, e in zip(single, expected, strict=True))


def test_column_scale_of_strips(isa, generator):
    for k, group_size in ((192, 64), (130, 64), (7, 64), (9, 1), (100, 33)):
        weight, mask = problem((1, 40, k), generator, 0.6)
        weight, mask = weight[0], mask[0]
        padding = (0, -k % group_size)
        strips = torch.nn.functional.pad(weight, padding).reshape(40, -1, group_size).transpose(0, 1)
        kept = torch.nn.functional.pad(mask, padding).reshape(40, -1, group_size).transpose(0, 1)
        expected = reference(strips.double(), kept, "sinq", 16)[0].flatten()[:k]
        scale = ops.column_scale(weight, mask, method="sinq", group_size=group_size)
        assert scale.dtype == torch.bfloat16
        assert relative_gap(scale, expected) < 2**-8 + 1e-4, (k, group_size)


def test_column_scale_methods(isa, generator):
    weight, mask = problem((1, 40, 70), generator, 0.5)
    weight, mask = weight[0], mask[0]
    mask[:, 5] = False
    assert torch.equal(ops.column_scale(weight, mask, method="none"), torch.ones(70, dtype=torch.bfloat16))
    for method in ("rms", "prism"):
        expected = ops.sinkhorn(weight, mask, variant=method)[0].bfloat16()
        assert torch.equal(ops.column_scale(weight, mask, method=method), expected)
    for method in ("rms", "prism", "sinq"):
        for scaled in (weight, weight * 1e-12, weight * 1e12, torch.zeros_like(weight)):
            scale = ops.column_scale(scaled, mask, method=method)
            assert bool((scale.isfinite() & (scale > 0)).all()), method
            assert scale[5] == 1
        assert ops.column_scale(weight[:0], method=method).tolist() == [1.0] * 70
        assert ops.column_scale(weight[:, :0], method=method).shape == (0,)


def test_opcheck(generator):
    for shape, density in (((2, 5, 9), None), ((1, 4, 64), 0.5), ((0, 3, 4), 0.5)):
        arguments = (*problem(shape, generator, density), "sinq", 4)
        torch.library.opcheck(torch.ops.prism.sinkhorn.default, arguments)


def test_compiles_to_one_graph(generator):
    weight, mask = problem((1, 20, 130), generator, 0.5)
    compiled = torch.compile(lambda w, m: ops.column_scale(w, m, method="sinq"), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(weight[0], mask[0]), ops.column_scale(weight[0], mask[0], method="sinq"))


W = torch.zeros(2, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.sinkhorn(W[0], variant="rms"), ValueError, r"sinkhorn: weight must have 2 or 3 dim.* got \[4\]"),
        (lambda: ops.sinkhorn(W.int(), variant="rms"), TypeError, "sinkhorn: weight must have dtype float32 .*int32"),
        (lambda: ops.sinkhorn(W, W > 0, variant="l2"), ValueError, "variant must be 'sinq', .*, got 'l2'"),
        (lambda: ops.sinkhorn(W, W, variant="rms"), TypeError, "sinkhorn: mask must have dtype bool, got .*float32"),
        (lambda: ops.sinkhorn(W, W[:1] > 0, variant="rms"), ValueError, r"mask must have shape \[2, 4\], got \[1, 4\]"),
        (lambda: ops.sinkhorn(W, variant="sinq", iterations=-1), ValueError, "iterations must be at least 0, got -1"),
        (lambda: ops.column_scale(W[None], method="rms"), ValueError, r"column_scale: weight must have shape \[\*"),
        (lambda: ops.column_scale(W, method="x"), ValueError, "column_scale: method must be 'none', .*, got 'x'"),
        (lambda: ops.column_scale(W, method="sinq", group_size=0), ValueError, "group_size must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_errors_name_argument_rule_and_value(call, error, message):
    with pytest.raises(error, match=message):
        call()
