"""Scores, masks and compensation against oracles written the slow, obvious way."""

import pytest
import torch
from small_matrices import counted

from prism_kernels import ops
from prism_llm.calibration import InputStatistics
from prism_llm.pruning import (
    HessianSolver,
    Pattern,
    magnitude_score,
    obs_one_shot,
    obs_sweep,
    prism_mask,
    select_mask,
    wanda_score,
)
from prism_llm.pruning.compensation import SweepGrid
from prism_llm.quantization import round_to_nearest


def random_layer(generator, n=12, k=20, tokens=200, weakest=0.1):
    """A weight, correlated inputs with unequal channels, and their statistics."""
    weight = torch.randn(n, k, generator=generator)
    mix = torch.randn(k, k, generator=generator) * 0.3 + torch.eye(k)
    x = torch.randn(tokens, k, generator=generator) @ mix * torch.rand(k, generator=generator).add(weakest)
    statistics = InputStatistics(k, hessian=True)
    statistics.add(x)
    return weight, x, statistics


def brute_force_row_mask(score, sparsity):
    mask = torch.ones_like(score, dtype=torch.bool)
    for i, row in enumerate(score.tolist()):
        order = sorted(range(len(row)), key=lambda j: row[j])  # stable: equal scores in index order
        mask[i, order[: counted(len(row), sparsity)]] = False
    return mask


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.29, 0.5, 0.7, 0.99])
def test_wanda_equals_brute_force(generator, sparsity):
    for n, k in ((1, 1), (3, 7), (5, 64), (8, 129)):
        weight, x = torch.randn(n, k, generator=generator), torch.randn(31, k, generator=generator)
        weight[:, : k // 3] = 0.5  # ties
        norms = x.norm(dim=0)
        expected = brute_force_row_mask(weight.abs() * norms, sparsity)
        assert torch.equal(select_mask(wanda_score(weight, norms), Pattern(), sparsity, "row"), expected)


def test_counts_are_exact(generator):
    for n, k in ((1, 5), (7, 13), (16, 64)):
        score = magnitude_score(torch.randn(n, k, generator=generator).round())  # many ties and zeros
        for sparsity in (0.0, 0.29, 0.5, 0.57, 0.999):
            by_row = select_mask(score, Pattern(), sparsity, "row")
            assert (~by_row).sum(1).tolist() == [counted(k, sparsity)] * n
            assert int((~select_mask(score, Pattern(), sparsity, "matrix")).sum()) == counted(n * k, sparsity)


def test_n_of_m_keeps_n(generator):
    score = torch.rand(5, 24, generator=generator)
    for text in ("1:4", "2:4", "3:4", "4:8", "5:12"):
        pattern = Pattern.parse(text)
        mask = select_mask(score, pattern, pattern.sparsity, "row")
        groups = mask.view(5, -1, pattern.m)
        assert bool((groups.sum(-1) == pattern.n).all()), text
        kept = score.view(5, -1, pattern.m).masked_fill(~groups, 2).amin(-1)
        assert bool((kept >= score.view(5, -1, pattern.m).masked_fill(groups, -1).amax(-1)).all())


@pytest.mark.parametrize("text", ["", "2:2", "4:2", "0:4", "2-4", "a:b", "dense", "2:4 ", "-1:4"])
def test_patterns_that_are_none(text):
    with pytest.raises(ValueError, match='must be "unstructured" or "n:m" with 1 <= n < m'):
        Pattern.parse(text)


def sinq_factors(matrix, iterations=16):
    """The iteration of SINQ as its source has it: zeros included, nothing left out."""
    log_column, log_row = torch.zeros(matrix.shape[1]), torch.zeros(matrix.shape[0])
    clip = lambda t: t.clamp(1e-3, 1e3)  # noqa: E731
    target = min(clip(matrix.std(0)).min(), clip(matrix.std(1)).min()) + 1e-6
    best, lowest, closed = (log_column.exp(), log_row.exp()), float("inf"), False
    for _ in range(iterations):
        scaled = matrix / log_column.exp() / log_row.exp()[:, None]
        spreads = torch.cat([scaled.std(0), scaled.std(1)])
        imbalance = float(spreads.max() / spreads.min().clamp(min=1e-12))
        if imbalance <= lowest:
            best, lowest = (log_column.exp(), log_row.exp()), imbalance
        else:
            closed = True
        if not closed:
            steps = [(clip(scaled.std(d)) / target).clamp(0.7, 2.0).log() for d in (0, 1)]
            log_column, log_row = (log_column + steps[0]).clamp(-0.3, 10), (log_row + steps[1]).clamp(-0.3, 10)
    return best


def test_prism_equals_its_source(generator):
    # No line may die here: that is where the original goes wrong.
    weight, _, statistics = random_layer(generator, 24, 40, weakest=1)
    prune = int(weight.numel() * 0.5)
    mask = torch.ones_like(weight, dtype=torch.bool)
    for _ in range(2):
        column, row = sinq_factors(weight * mask)
        importance = weight.abs() * statistics.norms / (column * row[:, None] + 1e-6)
        mask = importance > importance.flatten().kthvalue(prune).values
        assert mask.any(0).all() and mask.any(1).all()
    ours = prism_mask(weight, statistics.norms, lambda s: select_mask(s, Pattern(), 0.5, "matrix"))
    assert torch.equal(ours, mask)
    assert not torch.equal(ours, select_mask(wanda_score(weight, statistics.norms), Pattern(), 0.5, "matrix"))


@pytest.mark.parametrize("factors", ["sinq", "prism"])
def test_prism_is_not_thrown_off_by_dead_lines(generator, factors):
    weight, _, statistics = random_layer(generator, 16, 24)

    def select(score):
        return select_mask(score, Pattern(), 0.25, "matrix")

    alive = prism_mask(weight, statistics.norms, select, factors=factors)
    # A dead row and a dead column more must not change what the live part looks like.
    padded, norms = torch.zeros(17, 25), torch.cat([statistics.norms, torch.ones(1)])
    padded[:16, :24] = weight
    pruned_more = (int(16 * 24 * 0.25) + 17 + 24) / (17 * 25)
    mask = prism_mask(padded, norms, lambda s: select_mask(s, Pattern(), pruned_more + 1e-9, "matrix"), factors=factors)
    assert torch.equal(mask[:16, :24], alive)
    assert not mask[16].any() and not mask[:, 24].any()


def test_one_shot_equals_the_loop_over_rows(generator):
    weight, _, statistics = random_layer(generator)
    solver = HessianSolver(statistics)
    inverse = solver.one_shot_inverse().full(symmetric=True)
    damping = max(0.01 * float(statistics.gram.diagonal().mean()), 1e-2)
    expected_inverse = torch.linalg.inv(statistics.gram.double() + damping * torch.eye(20, dtype=torch.float64))
    torch.testing.assert_close(inverse.double(), expected_inverse, rtol=1e-3, atol=1e-6)
    mask = select_mask(wanda_score(weight, statistics.norms), Pattern(), 0.5, "row")
    ours = obs_one_shot(weight, mask, inverse)
    for i in range(weight.shape[0]):
        row = weight[i].clone()
        for j in (~mask[i]).nonzero().flatten():
            row -= weight[i, j] / inverse[j, j] * inverse[:, j]
        torch.testing.assert_close(ours[i], row * mask[i], rtol=1e-4, atol=1e-5)
    assert bool((ours[~mask] == 0).all())
    assert solver.notes == []


def naive_sweep(weight, factor, *, sparsity=None, mask=None, block=128):
    """SparseGPT's loop over all columns in float64, without blocked updates."""
    w, u = weight.double().clone(), factor.double()
    n, k = w.shape
    mask = torch.ones(n, k, dtype=torch.bool) if mask is None else mask.clone()
    for j in range(k):
        if sparsity is not None and j % block == 0:
            score = (w[:, j : j + block] ** 2 / u.diagonal()[j : j + block] ** 2).flatten()
            chosen = torch.ones_like(score, dtype=torch.bool)
            chosen[score.argsort(stable=True)[: counted(score.numel(), sparsity)]] = False
            mask[:, j : j + block] = chosen.view(n, -1)
        error = torch.where(mask[:, j], 0.0, w[:, j]) / u[j, j]
        w[:, j:] -= error[:, None] * u[j, j:]
        w[~mask[:, j], j] = 0
    return w, mask


@pytest.mark.parametrize("block", [8, 16, 128])
def test_sweep_equals_the_naive_one(generator, block):
    weight, _, statistics = random_layer(generator, 10, 50)
    factor = HessianSolver(statistics).sweep_factor().full(symmetric=False)
    expected, expected_mask = naive_sweep(weight, factor, sparsity=0.5, block=block)
    result = obs_sweep(weight, factor, sparsity=0.5, block_size=block)
    assert torch.equal(result.mask, expected_mask)
    torch.testing.assert_close(result.weight.double(), expected, rtol=1e-4, atol=1e-5)
    assert bool((result.weight[~result.mask] == 0).all())
    for begin in range(0, 50, block):
        part = result.mask[:, begin : begin + block]
        assert int((~part).sum()) == int(part.numel() * 0.5)


def test_sweep_with_a_fixed_mask_does_not_depend_on_the_block(generator):
    weight, x, statistics = random_layer(generator, 10, 50)
    factor = HessianSolver(statistics).sweep_factor().full(symmetric=False)
    mask = select_mask(wanda_score(weight, statistics.norms), Pattern(), 0.5, "row")
    expected, _ = naive_sweep(weight, factor, mask=mask)
    for block in (1, 7, 50, 128):
        result = obs_sweep(weight, factor, mask=mask, block_size=block)
        assert torch.equal(result.mask, mask)
        torch.testing.assert_close(result.weight.double(), expected, rtol=1e-4, atol=1e-5)
    before, after = (((x @ (weight - w).T).norm()) for w in (weight * mask, result.weight))
    assert after < 0.9 * before


def test_sweep_keeps_n_of_m(generator):
    weight, _, statistics = random_layer(generator, 6, 24)
    factor = HessianSolver(statistics).sweep_factor().full(symmetric=False)
    result = obs_sweep(weight, factor, pattern=Pattern(1, 4), block_size=8)
    assert bool((result.mask.view(6, -1, 4).sum(-1) == 1).all())


@pytest.mark.parametrize("group_size", [None, 4, 8])
@pytest.mark.parametrize("sparsity", [0.0, 0.5])
def test_rounding_inside_the_sweep_decodes_to_its_weight(generator, group_size, sparsity):
    weight, _, statistics = random_layer(generator, 10, 44)
    factor = HessianSolver(statistics).sweep_factor().full(symmetric=False)
    scale = ops.column_scale(weight, method="rms")
    result = obs_sweep(weight, factor, sparsity=sparsity, block_size=16, grid=SweepGrid(4, group_size, scale))
    width = group_size or 44
    spread = [t.float().repeat_interleave(width, 1)[:, :44] for t in (result.scale, result.zero)]
    assert torch.equal((result.codes.float() - spread[1]) * spread[0] * scale.float(), result.weight)
    assert bool((result.weight[~result.mask] == 0).all())
    if group_size is None:
        dense_grid = ops.dual_shift_quantize(weight, scale, bits=4, group_size=44)
        assert torch.equal(result.scale, dense_grid[1]) and torch.equal(result.zero, dense_grid[2])


def test_joint_rounding_beats_rounding_afterwards(generator):
    weight, x, statistics = random_layer(generator, 64, 64)
    factor, ones = HessianSolver(statistics).sweep_factor(), torch.ones(64, dtype=torch.bfloat16)
    for sparsity in (0.0, 0.5):
        joint = obs_sweep(weight, factor, sparsity=sparsity, block_size=16, grid=SweepGrid(3, None, ones)).weight
        pruned = obs_sweep(weight, factor, sparsity=sparsity, block_size=16)
        packed = round_to_nearest(pruned.weight, pruned.mask, ones, bits=3, group_size=64, codebook="uniform")
        errors = [(x @ (weight - w).T).norm() for w in (joint, packed.to_dense())]
        assert errors[0] < 0.95 * errors[1], sparsity


def statistics_of(gram, tokens=10):
    statistics = InputStatistics(gram.shape[0], hessian=True)
    statistics.gram, statistics.tokens = gram, tokens
    return statistics


def test_dead_inputs_do_not_stop_the_sweep(generator):
    _, x, _ = random_layer(generator, 6, 16)
    x[:, [2, 9]] = 0
    statistics = InputStatistics(16, hessian=True)
    statistics.add(x)
    solver = HessianSolver(statistics)
    assert solver.dead_inputs().nonzero().flatten().tolist() == [2, 9]
    factor = solver.sweep_factor().full(symmetric=False)
    assert solver.notes == [] and bool(factor.isfinite().all())
    gram = statistics.gram.double()
    gram.diagonal()[[2, 9]] = 0
    hessian = gram * 2 / statistics.tokens
    hessian.diagonal().add_(0.01 * float(hessian.diagonal().sum() / 14))
    hessian.diagonal()[[2, 9]] += 1
    torch.testing.assert_close(factor.double().T @ factor.double(), torch.linalg.inv(hessian), rtol=1e-3, atol=1e-4)
    all_dead = HessianSolver(statistics_of(torch.zeros(4, 4)))
    assert bool(all_dead.sweep_factor().is_finite())


def test_the_damping_ladder_is_climbed_and_told():
    base = torch.eye(8)
    base[0, 0] = -0.05  # not positive definite until the damping exceeds 0.05 of the mean
    solver = HessianSolver(statistics_of(base), percdamp=0.01)
    assert solver.sweep_factor() is not None
    assert solver.notes == ["damping 0.1 in float32"]
    assert solver.sweep_factor() is solver.sweep_factor() and len(solver.notes) == 1
    hopeless = HessianSolver(statistics_of(-torch.eye(8) + 0.5))
    assert hopeless.sweep_factor() is None and hopeless.one_shot_inverse() is None
    assert hopeless.notes == ["Hessian not positive definite even with damping 1 in float64"] * 2


def test_float64_serves_where_float32_fails():
    # In float32 the damping drowns in the diagonal, and the second pivot is 1 - 1.
    solver = HessianSolver(statistics_of(torch.full((2, 2), 5.0)), percdamp=1e-9)
    assert solver.sweep_factor() is not None
    assert solver.notes == ["damping 1e-09 in float64"]
