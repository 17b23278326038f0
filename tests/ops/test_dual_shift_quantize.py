"""dual_shift_quantize: literal, reference, contract and poison tests under every instruction set."""

import pytest
import torch

from dual_shift_cases import GRIDS, all_grids, make_column_scale, make_weight
from prism_kernels import ops
from prism_kernels.reference.codebooks import LEVELS, levels
from prism_kernels.reference.dual_shift_quantize import dual_shift_quantize as reference

SHAPES = [(1, 1), (3, 7), (5, 63), (4, 64), (17, 130), (0, 16), (3, 0), (9, 257)]


def assert_same(actual, expected, label):
    for name, a, e in zip(("codes", "scale", "zero"), actual, expected, strict=True):
        assert a.dtype == e.dtype and torch.equal(a, e), (name, *label)


def test_literal(isa):
    weight = torch.tensor([[-1.0, 0.0, 2.0, 0.5, 3.0, 3.0, 6.0, 1.0, 7.0]])
    column_scale = torch.tensor([1, 1, 1, 1, 1, 1, 2, 1, 1], dtype=torch.bfloat16)
    codes, scale, zero = ops.dual_shift_quantize(weight, column_scale, bits=2, group_size=4)
    # hulls [-1, 2], [0, 3], [0, 7]; 0.5 and 2.5 round to even
    assert scale.tolist() == [[1.0, 1.0, float(torch.tensor(7 / 3).bfloat16())]]
    assert zero.tolist() == [[1, 0, 0]]
    assert codes.tolist() == [[0, 1, 3, 1, 3, 3, 3, 1, 3]]
    isa.assert_served("dual_shift_quantize", best="avx512")


def test_pruned_weights_do_not_widen_the_hull(isa):
    weight = torch.tensor([[-1.0, 100.0, 2.0, float("nan")]])
    mask = torch.tensor([[True, False, True, False]])
    codes, scale, zero = ops.dual_shift_quantize(
        weight, torch.ones(4, dtype=torch.bfloat16), mask, bits=2, group_size=4
    )
    assert (codes.tolist(), scale.tolist(), zero.tolist()) == ([[0, 1, 3, 1]], [[1.0]], [[1]])


def test_matches_reference(isa, poison, generator):
    for n, k in SHAPES:
        for bits, codebook, group in all_grids((64, 32, 8, 5, 1, 96, 4096)):
            weight, mask = make_weight(n, k, generator)
            column_scale = make_column_scale(k, generator)
            for kept in (None, mask):
                expected = reference(weight, column_scale, kept, bits, group, codebook)
                actual = ops.dual_shift_quantize(
                    weight, column_scale, kept, bits=bits, group_size=group, codebook=codebook
                )
                assert_same(actual, expected, (n, k, bits, codebook, group, kept is None))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_weights_and_strides(isa, generator, dtype):
    weight = torch.randn(130, 12, generator=generator).to(dtype).T
    mask = (torch.rand(130, 12, generator=generator) < 0.5).T
    column_scale = make_column_scale(130, generator)
    for bits, codebook in GRIDS:
        expected = reference(weight, column_scale, mask, bits, 32, codebook)
        actual = ops.dual_shift_quantize(weight, column_scale, mask, bits=bits, group_size=32, codebook=codebook)
        assert_same(actual, expected, (bits, codebook))


def test_ties_and_grid_points_match_reference(isa, generator):
    """Weights on half steps and exactly between two levels: rounding must agree in every tie."""
    column_scale = torch.ones(64, dtype=torch.bfloat16)
    halves = torch.randint(-16, 15, (8, 64), generator=generator).float() / 2
    halves[:, :2] = torch.tensor([-8.0, 7.0])
    for bits in (2, 3, 4, 5, 6, 8):
        actual = ops.dual_shift_quantize(halves, column_scale, bits=bits, group_size=64)
        assert_same(actual, reference(halves, column_scale, None, bits, 64, "uniform"), (bits,))
    for bits, codebook in ((4, "nf4"), (3, "nf3")):
        table = levels(codebook)
        points = torch.cat([table, (table[:-1] + table[1:]) / 2])
        points = torch.cat([points, points.nextafter(points + 1), points.nextafter(points - 1)]).clamp(-1, 1)[None]
        scale = torch.ones(points.shape[1], dtype=torch.bfloat16)
        actual = ops.dual_shift_quantize(points, scale, bits=bits, group_size=points.shape[1], codebook=codebook)
        assert_same(actual, reference(points, scale, None, bits, points.shape[1], codebook), (codebook,))
        assert actual[0][0, : len(table)].tolist() == list(range(len(table)))


def test_extreme_magnitudes_match_reference(isa):
    """Scales that overflow bfloat16, become subnormal or vanish are replaced alike, and stay finite and positive."""
    rows = [[3e38, -3e38, 1.0, 0.0], [1e-45, 0.0, -1e-44, 0.0], [0.0] * 4, [1e-39, 2e-38, -1e-38, 0.0], [-3.4e38] * 4]
    weight = torch.tensor(rows)
    column_scale = torch.tensor([0.5, 1.0, 2.0, 1.0], dtype=torch.bfloat16)
    for bits, codebook in GRIDS:
        actual = ops.dual_shift_quantize(weight, column_scale, bits=bits, group_size=4, codebook=codebook)
        assert_same(actual, reference(weight, column_scale, None, bits, 4, codebook), (bits, codebook))
        assert bool(actual[1].isfinite().all()) and bool((actual[1] > 0).all())


def test_error_is_at_most_one_step(isa, generator):
    """Half a step from rounding the value and, because the zero point is rounded too, up to half more at the ends."""
    weight, mask = make_weight(16, 256, generator)
    column_scale = make_column_scale(256, generator)
    for bits in (2, 3, 4, 5, 6, 8):
        codes, scale, zero = ops.dual_shift_quantize(weight, column_scale, mask, bits=bits, group_size=64)
        steps = (weight / column_scale.float()).reshape(16, 4, 64) / scale.float().unsqueeze(-1)
        error = (codes.reshape(16, 4, 64).float() - zero.float().unsqueeze(-1) - steps).abs().flatten(1)
        # bf16 rounds the scale by up to 2^-9, so the hull may exceed the grid by maxq * 2^-9 steps
        assert float(error[mask].max()) <= 1.0 + (2**bits - 1) * 2**-8, bits


def test_levels_are_normal_quantiles():
    for codebook, bits in (("nf4", 4), ("nf3", 3)):
        count = 2**bits
        tail = (1 / (2 * count) + 1 / (2 * (count - 1))) / 2
        normal = torch.distributions.Normal(0.0, 1.0)
        upper = normal.icdf(torch.linspace(1 - tail, 0.5, count // 2 + 1, dtype=torch.float64)[:-1])
        lower = -normal.icdf(torch.linspace(1 - tail, 0.5, count // 2, dtype=torch.float64)[:-1])
        expected = torch.cat([lower, torch.zeros(1), upper]).sort().values / upper.max()
        assert torch.allclose(levels(codebook).double(), expected, atol=5e-7)
        assert {-1.0, 0.0, 1.0} <= set(LEVELS[codebook])


def test_opcheck(generator):
    op = torch.ops.prism.dual_shift_quantize.default
    for (n, k), kept, codebook in [((4, 65), True, "uniform"), ((3, 64), False, "nf4"), ((0, 8), True, "uniform")]:
        weight, mask = make_weight(n, k, generator)
        torch.library.opcheck(op, (weight, make_column_scale(k, generator), mask if kept else None, 4, 32, codebook))


def test_compiles_to_one_graph(generator):
    weight, mask = make_weight(5, 65, generator)
    column_scale = make_column_scale(65, generator)

    def quantize(w, c, m):
        return ops.dual_shift_quantize(w, c, m, bits=3, group_size=32)

    compiled = torch.compile(quantize, fullgraph=True, backend="aot_eager")
    assert_same(
        compiled(weight, column_scale, mask), reference(weight, column_scale, mask, 3, 32, "uniform"), ()
    )  # fmt: skip


W, C = torch.zeros(2, 4), torch.ones(4, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((W[0], C), {}, ValueError, r"weight must have shape \[\*, \*\], got \[4\]"),
        ((W.int(), C), {}, TypeError, "weight must have dtype float32 or float16 or bfloat16, got torch.int32"),
        ((W, C.float()), {}, TypeError, "column_scale must have dtype bfloat16, got torch.float32"),
        ((W, C[:3]), {}, ValueError, r"column_scale must have shape \[4\], got \[3\]"),
        ((W, C, W), {}, TypeError, "mask must have dtype bool, got torch.float32"),
        ((W, C, W[:1] > 0), {}, ValueError, r"mask must have shape \[2, 4\], got \[1, 4\]"),
        ((W, C), {"bits": 7}, ValueError, "bits must be one of 2, 3, 4, 5, 6, 8, got 7"),
        ((W, C), {"group_size": 0}, ValueError, "group_size must be at least 1, got 0"),
        ((W, C), {"codebook": "nf5"}, ValueError, "codebook must be one of uniform, nf4, nf3, got 'nf5'"),
        ((W, C), {"codebook": "nf3"}, ValueError, "bits must be 3 for codebook 'nf3', got 4"),
    ],
)
def test_errors_name_argument_rule_and_value(arguments, options, error, message):
    with pytest.raises(error, match=f"dual_shift_quantize: {message}"):
        ops.dual_shift_quantize(*arguments, **{"bits": 4, "group_size": 64, **options})
