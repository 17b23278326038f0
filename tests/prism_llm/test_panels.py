"""Matrices of which only the upper triangle exists: products, inverses and factors, in panels of every width, and in
files."""

import gc
import tempfile
import weakref
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_model, tokens

from prism_llm import compress
from prism_llm.calibration import InputStatistics, StoredPanels, UpperPanels, panels, store_products
from prism_llm.pipeline import engine
from prism_llm.pruning import HessianSolver, obs_one_shot, obs_sweep
from prism_llm.pruning.panel_inverse import invert_, invert_to_factor_
from prism_llm.scratch_file import ScratchFile, TensorFile

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("k", "width"), SHAPES)
def test_a_matrix_from_a_file_is_the_one_that_was_written(k, width, dtype):
    file = ScratchFile()
    originals = [symmetric(k, width, dtype)[0], UpperPanels.zeros(0, dtype=dtype), symmetric(2 * k, width, dtype)[0]]
    stored = [StoredPanels(file, matrix) for matrix in originals]
    for matrix, found in zip(originals, stored, strict=True):
        assert torch.equal(found.diagonal(), matrix.diagonal())
        found.load().add_to_diagonal(5.0)  # what is loaded is a copy
        x = torch.randn(300, matrix.size, dtype=dtype)
        assert torch.equal(found.quadratic(x), matrix.quadratic(x))
        for wanted, got in [(matrix, found.load()), (matrix.to(torch.float64, 0.7), found.to(torch.float64, 0.7))]:
            assert (got.size, got.width, got.dtype) == (wanted.size, wanted.width, wanted.dtype)
            for left, right in zip(wanted.panels, got.panels, strict=True):
                assert torch.equal(left, right)


def test_a_file_is_gone_with_its_last_matrix():
    file = ScratchFile()
    first, second = (StoredPanels(file, symmetric(10, 4)[0]) for _ in range(2))
    stream = file._stream
    del file, first
    gc.collect()
    assert not stream.closed and second.load().size == 10
    stream.truncate(100)
    with pytest.raises(OSError, match="ScratchFile: tensor of 320 bytes must be in the file"):
        second.load()
    del second
    gc.collect()
    assert stream.closed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")
def test_a_full_disk_is_named(monkeypatch):
    full = Path("/dev/full")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda buffering: full.open("wb", buffering))
    with pytest.raises(OSError, match=r"ScratchFile: TMPDIR must have room for .*, got /.* with No space left"):
        ScratchFile().append(torch.ones(4))


def test_a_list_of_tensors_in_a_file():
    tensors = [torch.randn(2, 3), torch.arange(5), torch.randn(4, 0), torch.randn(3, 8).bfloat16().T]
    stored = TensorFile()
    for tensor in tensors:
        stored.append(tensor)
    assert len(stored) == len(tensors) and all(map(torch.equal, stored, tensors))
    stored[1][0] = 7  # a copy
    tensors[1:3] = torch.arange(5) + 1, torch.randn(6).double()
    stored[1], stored[2] = tensors[1:3]
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(stored, tensors, strict=True))
    with pytest.raises(IndexError):
        stored[4]


def test_statistics_in_a_file_serve_as_those_in_memory():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(120, 40, generator=generator) * (torch.arange(40) % 7 != 0)
    here, there, plain = (InputStatistics(40, hessian=hessian) for hessian in (True, True, False))
    for statistics in (here, there, plain):
        statistics.add(x)
    store_products([there, plain, there])
    assert plain.products is None and torch.equal(here.gram, there.gram)
    with pytest.raises(RuntimeError, match="products must be in memory"):
        there.add(x)
    there.check("a linear")
    here, there = HessianSolver(here), HessianSolver(there)
    assert torch.equal(here.dead_inputs(), there.dead_inputs()) and bool(here.dead_inputs().any())
    for found in ("one_shot_inverse", "sweep_factor"):
        left, right = getattr(here, found)(), getattr(there, found)()
        assert all(torch.equal(a, b) for a, b in zip(left.panels, right.panels, strict=True))
    assert torch.equal(here.damped_hessian(), there.damped_hessian())


def test_the_solver_holds_nothing_for_the_last_linear():
    statistics = InputStatistics(8, hessian=True)
    statistics.add(torch.randn(30, 8, generator=torch.Generator().manual_seed(0)))
    solver = HessianSolver(statistics)
    inverse = solver.one_shot_inverse()
    assert solver.one_shot_inverse() is inverse
    solver.keep = False
    assert solver.one_shot_inverse() is inverse
    held = weakref.ref(inverse)
    del inverse
    assert held() is None and solver.sweep_factor() is not solver.sweep_factor()


@pytest.mark.parametrize("preset", ["prism", "sparsegpt", "asinq"])
def test_files_change_no_result(preset, monkeypatch):
    model, ids = tiny_model("llama"), tokens(8, 48)
    stored = compress(model, preset, calibration=ids)
    monkeypatch.setattr(engine, "store_products", lambda statistics: None)
    held = compress(model, preset, calibration=ids)
    assert [x.error for x in stored.report.linears] == [x.error for x in held.report.linears]
    left, right = stored.model.state_dict(), held.model.state_dict()
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
