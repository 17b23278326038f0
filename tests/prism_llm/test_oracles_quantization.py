"""Every rounding and column scale against loops of its formula, entry by entry, on 200 small matrices each.

Codes, scales and zeros are compared exactly: the loops round every operation to float32, as the contract says. Searches
(A-SINQ, half-quadratic zeros) are compared by what they minimize, in float64, because near ties go either way.
"""

import math

import numpy as np
import pytest
import torch
from small_matrices import small_matrices

from prism_kernels import ops
from prism_kernels.reference.codebooks import LEVELS
from prism_llm.calibration import InputStatistics
from prism_llm.pipeline import Recipe
from prism_llm.pipeline.layer import compress_weight
from prism_llm.quantization import refine_zeros, round_to_nearest, searched_column_scale, tiled_column_scale
from prism_llm.quantization.scales import ALPHAS

F = np.float32
BITS = (2, 3, 4, 5, 6, 8)


def bf16(value) -> F:
    return F(torch.tensor(float(value), dtype=torch.float32).bfloat16().float().item())


def groups_of(k, size):
    return [range(begin, min(begin + size, k)) for begin in range(0, k, size)]


def grid_by_loop(values, kept, bits):
    """(scale, zero) of one group of float32 values."""
    low = min([F(0)] + [v for v, m in zip(values, kept, strict=True) if m])
    high = max([F(0)] + [v for v, m in zip(values, kept, strict=True) if m])
    scale = bf16(F(F(high - low) / F(2**bits - 1)))
    if not scale >= torch.finfo(torch.bfloat16).tiny:
        scale = F(1)
    return scale, int(min(max(np.rint(F(-low / scale)), 0), 2**bits - 1))


def code_by_loop(value, scale, zero, bits):
    return int(min(max(np.rint(F(value / scale)) + zero, 0), 2**bits - 1))


def rounded_by_loop(weight, column, mask, bits, group_size):
    n, k = weight.shape
    codes, scales, zeros = np.zeros((n, k), int), [], []
    for i in range(n):
        for columns in groups_of(k, group_size):
            values = [F(F(weight[i, j].item()) / F(column[j].float().item())) for j in columns]
            kept = [bool(mask[i, j]) for j in columns]
            scale, zero = grid_by_loop(values, kept, bits)
            for j, value, keep in zip(columns, values, kept, strict=True):
                codes[i, j] = code_by_loop(value, scale, zero, bits) if keep else zero
            scales.append(scale)
            zeros.append(zero)
    return codes, np.array(scales).reshape(n, -1), np.array(zeros).reshape(n, -1)


@pytest.mark.parametrize("bits", BITS)
def test_uniform_codes_equal_the_loop_and_survive_packing(bits):
    for weight, mask, _, draw in small_matrices(f"rtn {bits}", count=40):
        n, k = weight.shape
        group_size, method = draw.choice([3, 8, 64]), draw.choice(["none", "rms", "sinq", "prism"])
        kept = None if draw.random() < 0.3 else mask
        column = ops.column_scale(weight, kept, method=method, group_size=group_size)
        counted = torch.ones(n, k, dtype=torch.bool) if kept is None else kept
        codes, scale, zero = rounded_by_loop(weight, column, counted, bits, group_size)
        found = ops.dual_shift_quantize(weight, column, kept, bits=bits, group_size=group_size)
        assert np.array_equal(found[0].numpy(), codes)
        assert np.array_equal(found[1].float().numpy(), scale) and np.array_equal(found[2].numpy(), zero)
        packed = round_to_nearest(weight, kept, column, bits=bits, group_size=group_size, codebook="uniform")
        group = np.arange(k) // group_size
        decoded = (codes - zero[:, group]).astype(F) * scale[:, group] * column.float().numpy()
        assert np.array_equal(packed.to_dense(torch.float32).numpy(), np.where(counted.numpy(), decoded, F(0)))


@pytest.mark.parametrize("codebook", ["nf4", "nf3"])
def test_codebook_codes_equal_the_loop(codebook):
    levels = np.array(LEVELS[codebook], dtype=F)
    for weight, mask, _, draw in small_matrices(codebook, count=100):
        (n, k), group_size = weight.shape, draw.choice([3, 8, 64])
        column, bits = ops.column_scale(weight, mask, method="sinq", group_size=group_size), int(codebook[-1])
        found, scale, zero = ops.dual_shift_quantize(
            weight, column, mask, bits=bits, group_size=group_size, codebook=codebook
        )
        assert zero.numel() == 0
        for i in range(n):
            for g, columns in enumerate(groups_of(k, group_size)):
                values = {j: F(F(weight[i, j].item()) / F(column[j].float().item())) for j in columns if mask[i, j]}
                expected = bf16(max([abs(v) for v in values.values()], default=0)) or F(1)
                assert float(scale[i, g]) == expected
                for j in columns:
                    level = levels[int(found[i, j])]
                    if j not in values:
                        assert level == 0
                        continue
                    distances = np.abs(levels.astype(float) - float(values[j]) / float(expected))
                    assert distances[int(found[i, j])] <= distances.min() + 1e-6


def imbalance_factors(tile, kept, iterations=16):
    """SINQ's iteration on one tile in float64: (column factor, whether a decision was too close to call)."""
    n, k = tile.shape
    rows = [[j for j in range(k) if kept[i, j]] for i in range(n)]
    columns = [[i for i in range(n) if kept[i, j]] for j in range(k)]
    lines = [("row", i) for i in range(n)] + [("column", j) for j in range(k)]

    def entries(line, u, v):
        kind, at = line
        where = [(at, j) for j in rows[at]] if kind == "row" else [(i, at) for i in columns[at]]
        return [tile[i, j] / u[j] / v[i] for i, j in where]

    def spread(values):
        if len(values) < 2:
            return 0.0
        mean = sum(values) / len(values)
        return math.sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - 1))

    u, v = np.ones(k), np.ones(n)
    alive = [line for line in lines if len(set(entries(line, u, v))) > 1]
    best, lowest, target, close = u.copy(), math.inf, None, False
    for _ in range(iterations if alive else 0):
        spreads = {line: spread(entries(line, u, v)) for line in alive}
        if target is None:
            target = min(max(min(max(x, 1e-3), 1e3) for x in [min(spreads.values())]) + 1e-6, 1e3)
        imbalance = max(spreads.values()) / max(min(spreads.values()), 1e-12)
        close = close or abs(imbalance - lowest) <= 1e-4 * imbalance
        if imbalance > lowest:
            break
        lowest, best = imbalance, u.copy()
        for (kind, at), value in spreads.items():
            factors = u if kind == "column" else v
            step = min(max(min(max(value, 1e-3), 1e3) / target, 0.7), 2.0)
            factors[at] = math.exp(min(max(math.log(factors[at] * step), -0.3), 10))
    return best, close


def test_sinq_column_factors_equal_the_loop_strip_by_strip():
    compared = 0
    for weight, mask, _, draw in small_matrices("sinq"):
        k, group_size = weight.shape[1], draw.choice([4, 8, 16])
        found = ops.column_scale(weight, mask, method="sinq", group_size=group_size).double().numpy()
        for columns in groups_of(k, group_size):
            strip, kept = weight[:, columns].double().numpy(), mask[:, columns].numpy()
            expected, close = imbalance_factors(strip, kept)
            if not close:
                compared += 1
                assert np.allclose(found[columns.start : columns.stop], expected, rtol=2**-8, atol=0)
    assert compared >= 200, compared


def test_tiles_share_the_geometric_mean_of_their_column_factors():
    for weight, mask, _, draw in small_matrices("tiles", count=200):
        (n, k), side = weight.shape, draw.choice([2, 3, 8])
        kept = None if draw.random() < 0.3 else mask
        found = tiled_column_scale(weight, kept, side).double()
        logs: list[list[float]] = [[] for _ in range(k)]
        for rows in groups_of(n, side):
            part = slice(rows.start, rows.stop)
            factors = ops.column_scale(
                weight[part], None if kept is None else kept[part], method="sinq", group_size=side
            )
            for j in range(k):
                if kept is None or bool(kept[part, j].any()):
                    logs[j].append(math.log(float(factors[j])))
        expected = torch.tensor([math.exp(sum(x) / len(x)) if x else 1.0 for x in logs], dtype=torch.float64)
        assert torch.allclose(found, expected, rtol=2**-8, atol=0)


def test_a_row_factor_changes_no_code(generator):
    """Why tiles need none: it scales the range of a row's group and its entries alike (powers of two: to the bit)."""
    weight = torch.randn(16, 32, generator=generator)
    rows = 2.0 ** torch.randint(-3, 4, (16, 1), generator=generator)
    column = tiled_column_scale(weight, None, 8)
    plain, scaled = (ops.dual_shift_quantize(w, column, bits=4, group_size=8) for w in (weight, weight * rows))
    assert torch.equal(plain[0], scaled[0]) and torch.equal(plain[2], scaled[2])
    assert torch.equal(plain[1].float() * rows, scaled[1].float())


def error_by_loop(weight, kept, codes, scale, zero, column, group_size, gram, norm):
    n, k = weight.shape
    total = 0.0
    for i in range(n):
        delta = [
            float(weight[i, j])
            - (int(codes[i, j]) - int(zero[i, j // group_size])) * float(scale[i, j // group_size]) * float(column[j])
            if kept[i, j]
            else 0.0
            for j in range(k)
        ]
        square = max(sum(delta[a] * gram[a, b] * delta[b] for a in range(k) for b in range(k)), 0.0)
        total += math.sqrt(square) if norm == "l1" else square
    return total


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_the_searched_scale_is_the_best_of_the_formula(norm):
    for weight, mask, statistics, draw in small_matrices(f"asinq {norm}", count=100, most_rows=4, most_columns=7):
        (n, k), bits, group_size = weight.shape, draw.choice([2, 3, 4]), draw.choice([3, 8])
        grid = {"bits": bits, "group_size": group_size}
        found = searched_column_scale(weight, mask, statistics, search_error=norm, **grid)
        base = ops.column_scale(weight, mask, method="sinq", group_size=group_size)
        x = (statistics.sum_abs / statistics.tokens).tolist()
        w = [
            sum(abs(float(weight[i, j])) for i in range(n) if mask[i, j]) / max(int(mask[:, j].sum()), 1)
            for j in range(k)
        ]
        living = [j for j in range(k) if x[j] > 0 and w[j] > 0]
        errors, gram = [], statistics.gram.double().numpy()
        for alpha in ALPHAS if living else ():
            a = {j: max(max(x[j] ** alpha, 1e-4) / (w[j] ** (1 - alpha) + 1e-4), 1e-4) for j in living}
            middle = math.sqrt(max(a.values()) * min(a.values()))
            column = torch.tensor([float(base[j]) / (a[j] / middle if j in a else 1) for j in range(k)])
            column = column.bfloat16()
            codes, scale, zero = rounded_by_loop(weight, column, mask, bits, group_size)
            errors.append(error_by_loop(weight, mask, codes, scale, zero, column, group_size, gram, norm))
        codes, scale, zero = rounded_by_loop(weight, found, mask, bits, group_size)
        reached = error_by_loop(weight, mask, codes, scale, zero, found, group_size, gram, norm)
        least, size = min(errors, default=reached), float(statistics.gram.diagonal().sum()) * float(weight.abs().max())
        assert reached <= least * (1 + 1e-3) + 1e-5 * (size + 1), (reached, least)


def refined_by_loop(values, kept, bits):
    """(scale, least mean error) of one group over the zeros that the proximal steps visit, in float64."""
    scale, zero = grid_by_loop(values, kept, bits)
    scale, maxq = float(scale), 2**bits - 1
    counted = [float(v) for v, m in zip(values, kept, strict=True) if m]

    def error(z):
        codes = [min(max(np.rint(v / scale) + z, 0), maxq) for v in counted]
        return sum(abs(v - (q - z) * scale) for v, q in zip(counted, codes, strict=True))

    least, real = error(zero), -min([0.0, *counted]) / scale
    for _ in range(20):
        moved = []
        for v in counted:
            q = min(max(np.rint(v / scale + real), 0), maxq)
            e = v - (q - real) * scale
            size = min(max(abs(e), 1e-5), 1e5)
            shrunk = math.copysign(max(size - size ** (0.7 - 1) / 10, 0), e) if e else 0.0
            moved.append(q - (v - shrunk) / scale)
        real = sum(moved) / len(moved) if moved else 0.0
        least = min(least, error(min(max(np.rint(real), 0), maxq)))
    return scale, least


@pytest.mark.parametrize("bits", BITS)
def test_refined_zeros_reach_what_the_steps_visit(bits):
    for weight, mask, _, draw in small_matrices(f"hqq {bits}", count=40):
        (n, k), group_size = weight.shape, draw.choice([3, 8, 64])
        column = ops.column_scale(weight, mask, method="rms", group_size=group_size)
        codes, scale, zero = refine_zeros(weight, column, mask, bits=bits, group_size=group_size)
        assert int(codes.max()) < 2**bits and int(zero.max()) < 2**bits
        for i in range(n):
            for g, columns in enumerate(groups_of(k, group_size)):
                values = [F(F(weight[i, j].item()) / F(column[j].float().item())) for j in columns]
                kept = [bool(mask[i, j]) for j in columns]
                expected, least = refined_by_loop(values, kept, bits)
                assert float(scale[i, g]) == expected
                z, reached = int(zero[i, g]), 0.0
                for j, value, keep in zip(columns, values, kept, strict=True):
                    q = int(codes[i, j])
                    assert q == (code_by_loop(value, F(expected), z, bits) if keep else z)  # codes are of that zero
                    reached += abs(float(value) - (q - z) * expected) if keep else 0.0
                assert reached <= least + 1e-5 * max(map(abs, map(float, values)))


def test_refined_zeros_never_lose_to_rounding_and_sometimes_win(generator):
    weight = torch.randn(64, 256, generator=generator)
    column = torch.ones(256, dtype=torch.bfloat16)
    grid = {"bits": 8, "group_size": 64}
    from prism_llm.quantization.scales import decode

    errors = [
        (weight - decode(*tensors, column, group_size=64)).view(64, 4, 64).abs().sum(-1)
        for tensors in (refine_zeros(weight, column, **grid), ops.dual_shift_quantize(weight, column, **grid))
    ]
    assert bool((errors[0] <= errors[1] * (1 + 1e-6)).all()) and float(errors[0].sum()) < float(errors[1].sum())


@pytest.mark.parametrize(
    ("fields", "stages"),
    [
        ({"scale": "asinq"}, "asinq scale > rtn"),
        ({"scale": "asinq", "codebook": "nf4"}, "asinq scale > rtn"),
        ({"scale": "sinq_2d", "round": "hqq"}, "sinq_2d scale > hqq"),
        ({"scale": "asinq", "sparsity": 0.5}, "wanda > asinq scale > rtn"),
        ({"scale": "asinq", "sparsity": 0.5, "pattern": "2:4"}, "wanda > asinq scale > rtn"),
        ({"sparsity": 0.5, "round": "hqq"}, "wanda > rms scale > hqq"),
        ({"scale": "asinq", "compensate": "obs_sweep", "round": "joint"}, "obs_sweep > asinq scale > joint"),
    ],
)
def test_recipes_run_the_stages_they_name(generator, fields, stages):
    from prism_llm.pruning import HessianSolver

    weight = torch.randn(48, 128, generator=generator)
    statistics = InputStatistics(128, hessian=True)
    statistics.add(torch.randn(512, 128, generator=generator) * torch.logspace(-1, 1, 128))
    recipe = Recipe(bits=4, group_size=32, **fields)
    assert recipe.needs_calibration == (recipe.prunes or recipe.scale == "asinq")
    result = compress_weight("w", weight, recipe, statistics, HessianSolver(statistics))
    assert result.stages == stages
    decoded = result.packed.to_dense(torch.float32)
    if result.mask is not None:
        assert bool((decoded[~result.mask] == 0).all())
    assert float((decoded - weight).norm() / weight.norm()) < 0.75


def test_the_search_pays_where_activations_are_uneven(generator):
    x = torch.randn(2048, 128, generator=generator) * torch.logspace(-1.5, 1.5, 128)
    weight = torch.randn(96, 128, generator=generator)
    statistics = InputStatistics(128, hessian=True)
    statistics.add(x)
    errors = {}
    for scale in ("sinq", "asinq"):
        packed = compress_weight("w", weight, Recipe(bits=3, scale=scale), statistics).packed
        errors[scale] = float((x @ (packed.to_dense(torch.float32) - weight).T).abs().mean())
    assert errors["asinq"] < 0.95 * errors["sinq"], errors
