"""Matrices of which only the upper triangle exists: products, inverses and factors, in panels of every width."""

import pytest
import torch
from tiny_models import tiny_model, tokens

from prism_llm import compress
from prism_llm.calibration import InputStatistics, UpperPanels, panels
from prism_llm.pruning import HessianSolver, obs_one_shot, obs_sweep
from prism_llm.pruning.panel_inverse import invert_, invert_to_factor_

SHAPES = [(1, 1), (5, 2), (7, 7), (7, 100), (10, 3), (33, 16), (64, 16), (100, 33)]


def symmetric(k, width, dtype=torch.float64):
    """A well-conditioned positive definite matrix, in panels and whole."""
    generator = torch.Generator().manual_seed(k)
    x = torch.randn(3 * k, k, generator=generator, dtype=dtype)
    matrix = UpperPanels.zeros(k, dtype=dtype, width=width)
    matrix.add_products(x[:k])
    matrix.add_products(x[k:])
    matrix.add_to_diagonal(1.0)
    return matrix, x.T @ x + torch.eye(k, dtype=dtype)


@pytest.mark.parametrize(("k", "width"), SHAPES)
def test_products_and_views(k, width):
    matrix, whole = symmetric(k, width)
    x = torch.randn(6, k, dtype=torch.float64)
    torch.testing.assert_close(matrix.full(symmetric=True), whole)
    torch.testing.assert_close(matrix.times(x), x @ whole)
    torch.testing.assert_close(matrix.quadratic(x), ((x @ whole) * x).sum(1))
    torch.testing.assert_close(matrix.diagonal(), whole.diagonal())
    again = UpperPanels.of(whole, width)
    assert torch.equal(again.full(symmetric=True).triu(), whole.triu())
    assert again.nbytes <= 8 * (k * k + k * min(width, k)) // 2
    upper = UpperPanels.of(whole.triu(), width)
    for begin in range(k):
        for end in range(begin + 1, k + 1):
            assert torch.equal(upper.strip(begin, end), whole.triu()[begin:end, begin:])
    matrix.fill_diagonal(torch.arange(k) % 2 == 0, -5.0)
    assert matrix.full(symmetric=True).diagonal()[::2].eq(-5).all() and matrix.is_finite()
    matrix.panels[-1][0, -1] = torch.nan
    assert not matrix.is_finite()


@pytest.mark.parametrize(("k", "width"), SHAPES)
def test_inverse_and_factor(k, width):
    matrix, whole = symmetric(k, width)
    inverse, factor = matrix.to(torch.float64), matrix.to(torch.float64)
    assert invert_(inverse) and invert_to_factor_(factor)
    expected = torch.linalg.inv(whole)
    torch.testing.assert_close(inverse.full(symmetric=True), expected)
    upper = factor.full(symmetric=False)
    torch.testing.assert_close(upper, torch.linalg.cholesky(expected, upper=True))
    assert torch.equal(upper, upper.triu())


@pytest.mark.parametrize("width", [2, 5, 16])
def test_what_is_not_positive_definite_is_refused(width):
    for wrong in range(7):
        matrix, _ = symmetric(7, width)
        matrix.fill_diagonal(torch.arange(7) == wrong, -1.0)
        assert not invert_(matrix.to(torch.float64)) and not invert_to_factor_(matrix.to(torch.float64))


def test_solvers_and_updates_do_not_depend_on_the_width(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(300, 50, generator=generator), torch.randn(9, 50, generator=generator)
    mask = torch.rand(9, 50, generator=generator) > 0.5
    found = []
    for width in (512, 7):
        monkeypatch.setattr(panels, "WIDTH", width)
        statistics = InputStatistics(50, hessian=True)
        statistics.add(x)
        solver = HessianSolver(statistics)
        one_shot = obs_one_shot(weight, mask, solver.one_shot_inverse())
        swept = obs_sweep(weight, solver.sweep_factor(), mask=mask, block_size=10)
        found.append((statistics.gram, solver.damped_hessian(), solver.output_factor(), one_shot, swept.weight))
        given = weight.clone()
        taken = obs_sweep(given, solver.sweep_factor(), mask=mask, block_size=10, overwrite=True)
        assert torch.equal(taken.weight, swept.weight) and taken.weight is given
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("preset", ["prism", "sparsegpt", "asinq"])
def test_narrow_panels_compress_as_wide_ones(preset, monkeypatch):
    model, ids = tiny_model("llama"), tokens(8, 48)
    wide = compress(model, preset, calibration=ids).report
    monkeypatch.setattr(panels, "WIDTH", 24)
    narrow = compress(model, preset, calibration=ids).report
    for left, right in zip(wide.linears, narrow.linears, strict=True):
        assert left.method == right.method and left.notes == right.notes
        assert right.error == pytest.approx(left.error, rel=0.02)
