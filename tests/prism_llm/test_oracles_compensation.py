"""Every update of kept weights against loops over rows and columns in float64, on 200 small matrices each."""

import pytest
import torch
from small_matrices import small_matrices

from prism_kernels import ops
from prism_llm.pipeline import Recipe
from prism_llm.pipeline.layer import compress_weight
from prism_llm.pruning import HessianSolver, enough_tokens, least_squares, obs_one_shot, obs_sweep
from prism_llm.pruning.compensation import SweepGrid


def normal_equations(weight, mask, hessian):
    """Row by row, w_S = H_SS^-1 (H w)_S in float64."""
    weight, hessian = weight.double(), hessian.double()
    result = torch.zeros_like(weight)
    for i in range(weight.shape[0]):
        kept = mask[i].nonzero()[:, 0]
        if len(kept):
            result[i, kept] = torch.linalg.solve(hessian[kept][:, kept], (hessian @ weight[i])[kept])
    return result


def scale_of(tensor):
    return max(float(tensor.abs().max()), 1e-3)


def objective(weight, solution, hessian):
    delta = solution.double() - weight.double()
    return float(((delta @ hessian.double()) * delta).sum())


def test_least_squares_equals_the_normal_equations():
    for weight, mask, statistics, _ in small_matrices("least squares"):
        hessian = HessianSolver(statistics).damped_hessian().double()
        hessian = (hessian + hessian.T) / 2  # float32 products are symmetric up to rounding only
        expected = normal_equations(weight, mask, hessian)
        solved = least_squares(weight.double(), mask, hessian)
        assert solved.converged, solved
        assert float((solved.weight - expected).abs().max()) <= 1e-6 * scale_of(expected)
        assert bool((solved.weight[~mask] == 0).all())


def test_least_squares_in_float32_is_as_good_as_exact():
    for weight, mask, statistics, _ in small_matrices("single"):
        hessian = HessianSolver(statistics).damped_hessian()
        solved = least_squares(weight, mask, hessian)
        assert solved.weight.dtype == torch.float32 and solved.converged, solved
        best = objective(weight, normal_equations(weight, mask, hessian), hessian)
        scale = objective(weight, torch.zeros_like(weight), hessian)
        assert objective(weight, solved.weight, hessian) <= best + 1e-7 * scale


def test_least_squares_has_nothing_to_do_where_nothing_or_everything_is_pruned(generator):
    weight, hessian = torch.randn(3, 5, generator=generator), torch.eye(5)
    for keep, expected in ((True, weight), (False, torch.zeros_like(weight))):
        solved = least_squares(weight, torch.full((3, 5), keep), hessian)
        assert torch.equal(solved.weight, expected) and solved.iterations == 0 and solved.residual == 0
    assert least_squares(torch.zeros(0, 5), torch.zeros(0, 5, dtype=torch.bool), hessian).weight.shape == (0, 5)


def test_least_squares_says_what_it_did_not_reach(generator):
    x = torch.randn(64, 32, generator=generator) * torch.logspace(-3, 0, 32)
    weight, mask = torch.randn(8, 32, generator=generator), torch.rand(8, 32, generator=generator) < 0.5
    mixing = torch.linalg.qr(torch.randn(32, 32, generator=generator))[0]
    solved = least_squares(weight, mask, mixing @ (x.T @ x) @ mixing.T + 1e-6 * torch.eye(32), max_iterations=2)
    assert not solved.converged and solved.residual > 1e-4 and solved.iterations == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(2, 3, dtype=torch.half), torch.ones(2, 3).bool(), torch.eye(3)), "weight must be float32"),
        ((torch.ones(2, 3), torch.ones(2, 3), torch.eye(3)), "mask must be bool"),
        ((torch.ones(2, 3), torch.ones(2, 3).bool(), torch.eye(3).double()), "hessian must be torch.float32"),
        ((torch.ones(2, 3), torch.ones(2, 3).bool(), torch.zeros(3, 3)), "hessian must have a positive diagonal"),
    ],
)
def test_least_squares_refuses_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=f"least_squares: {message}"):
        least_squares(*arguments)


def test_one_shot_equals_the_sum_of_single_corrections():
    for weight, mask, statistics, _ in small_matrices("one shot"):
        inverse = HessianSolver(statistics).one_shot_inverse().full(symmetric=True).double()
        expected = weight.double().clone()
        for i in range(weight.shape[0]):
            for j in (~mask[i]).nonzero()[:, 0].tolist():
                expected[i] -= float(weight[i, j]) / inverse[j, j] * inverse[j]
        expected[~mask] = 0
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
            found = obs_one_shot(weight.to(dtype), mask, inverse.to(dtype)).double()
            assert float((found - expected).abs().max()) <= tolerance * max(scale_of(expected), scale_of(weight))


def swept_by_columns(weight, factor, mask):
    """The sweep on a fixed mask, one weight at a time."""
    current, factor = weight.double().clone(), factor.double()
    result = torch.zeros_like(current)
    n, k = weight.shape
    for i in range(n):
        for j in range(k):
            result[i, j] = current[i, j] if mask[i, j] else 0.0
            error = (current[i, j] - result[i, j]) / factor[j, j]
            current[i, j:] -= error * factor[j, j:]
    return result


@pytest.mark.parametrize("block_size", [4, 128])
def test_reconstruction_on_a_fixed_mask_equals_its_loop(block_size):
    for weight, mask, statistics, _ in small_matrices(f"sweep {block_size}", count=100):
        solver = HessianSolver(statistics)
        living = torch.where(solver.dead_inputs(), 0.0, weight)
        found = obs_sweep(living, solver.sweep_factor(), mask=mask, block_size=block_size)
        expected = swept_by_columns(living, solver.sweep_factor().full(symmetric=False), mask)
        assert torch.equal(found.mask, mask) and bool((found.weight[~mask] == 0).all())
        assert float((found.weight - expected).abs().max()) <= 2e-6 * max(scale_of(expected), scale_of(weight))


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_every_code_of_joint_rounding_is_the_nearest_to_what_the_sweep_left(bits):
    """Replayed in float64 with the stored codes, grids and column scale; a code may be off only at a tie."""
    for weight, mask, statistics, draw in small_matrices(f"joint {bits}", count=40):
        solver, k = HessianSolver(statistics), weight.shape[1]
        group_size = draw.choice([None, 4, 8])
        living = torch.where(solver.dead_inputs(), 0.0, weight)
        scale = ops.column_scale(living, mask, method="rms", group_size=group_size or k)
        swept = obs_sweep(
            living, solver.sweep_factor(), mask=mask, block_size=8, grid=SweepGrid(bits, group_size, scale)
        )
        group = torch.arange(k) // (group_size or k)
        step = swept.scale.double()[:, group] * scale.double()
        zero, codes = swept.zero.double()[:, group], swept.codes.double()
        decoded = (codes - zero) * step
        assert torch.equal(swept.weight.double(), torch.where(mask, decoded, 0.0))
        assert bool((decoded[~mask] == 0).all())
        current, factor = living.double().clone(), solver.sweep_factor().full(symmetric=False).double()
        for j in range(k):
            real = (current[:, j] / step[:, j] + zero[:, j]).clamp(0, 2**bits - 1)
            off = (real - codes[:, j]).abs()[mask[:, j]]
            assert bool((off <= 0.5 + 1e-3).all()), (bits, off)
            error = (current[:, j] - torch.where(mask[:, j], decoded[:, j], 0.0)) / factor[j, j]
            current[:, j:] -= error[:, None] * factor[j, j:]


def test_the_order_of_methods_on_the_inputs_they_saw(generator):
    """Least squares is the best possible for its mask, the sweep comes close, no update is the worst; and rounding
    inside a sweep beats rounding after it."""
    x = torch.randn(2048, 48, generator=generator) @ torch.randn(48, 48, generator=generator)
    weight = torch.randn(64, 48, generator=generator)
    from prism_llm.calibration import InputStatistics

    statistics = InputStatistics(48, hessian=True)
    statistics.add(x)
    solver = HessianSolver(statistics)

    def error(**fields):
        result = compress_weight("w", weight, Recipe(sparsity=0.5, **fields), statistics, solver)
        return float((x @ (result.packed.to_dense(torch.float32) - weight).T).norm())

    errors = [error(compensate=c) for c in ("least_squares", "obs_sweep", "none")]
    assert errors == sorted(errors) and errors[0] < 0.95 * errors[1] < 0.9 * errors[2], errors
    adaptive = [error(score="sparsegpt", compensate=c) for c in ("least_squares", "obs_sweep")]
    assert adaptive[0] < adaptive[1], adaptive
    rounded = {
        (c, r): error(compensate=c, round=r, bits=3, group_size=16)
        for c in ("least_squares", "obs_sweep")
        for r in ("joint", "rtn")
    }
    for compensate in ("least_squares", "obs_sweep"):
        assert rounded[compensate, "joint"] < rounded[compensate, "rtn"], rounded


def test_too_few_tokens_for_least_squares_fall_back_to_the_sweep_and_say_so():
    for weight, _, statistics, _ in small_matrices("few", count=20, tokens=3):
        recipe = Recipe(sparsity=0.5, compensate="least_squares")
        result = compress_weight("w", weight, recipe, statistics, HessianSolver(statistics))
        swept = compress_weight(
            "w", weight, recipe.replace(compensate="obs_sweep"), statistics, HessianSolver(statistics)
        )
        if not enough_tokens(statistics.tokens, weight.shape[1]):
            assert any("obs_sweep instead of least_squares" in note for note in result.notes), result.notes
            assert result.stages == "wanda > obs_sweep"
            assert torch.equal(result.packed.to_dense(), swept.packed.to_dense())


def test_the_residual_of_least_squares_is_reported():
    weight, _, statistics, _ = next(iter(small_matrices("report", count=1, tokens=200)))
    recipe = Recipe(sparsity=0.5, compensate="least_squares")
    result = compress_weight("w", weight, recipe, statistics, HessianSolver(statistics))
    assert result.stages == "wanda > least_squares"
    assert any(note.startswith("least_squares: residual ") for note in result.notes), result.notes
