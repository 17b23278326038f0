"""The measurement of compression, on a model of a few thousand weights."""

import json

import pytest
import torch

from bench import bench_compression as bench
from prism_kernels import ops


def test_what_is_measured(tmp_path):
    bench.make_checkpoint(tmp_path / "model", 3, tiny=True)
    row = bench.measure(tmp_path / "model", "sparsegpt", 2, 16)
    assert row["preset"] == "sparsegpt" and row["blocks"] == 3 and row["seconds_per_block"] > 0
    assert 0 < row["kernel_share"] < 1 and 0 < row["product_share"] < 1
    block = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96 + 2 * 64)
    assert row["two_blocks_and_activations_bytes"] == 2 * block + 2 * 2 * 16 * 64 * 2
    assert row["outside_bytes"] == 2 * (2 * 256 * 64 + 64)
    assert row["products_bytes"] == 4 * 96 * 96 and row["least_bytes"] == block + 4 * 96 * 96 + 2 * 16 * 64 * 2
    assert len(bench.lines([row])[0]) == len(bench.COLUMNS)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.slow
def test_a_tiny_run_is_measured_and_kept(tmp_path, capfd):
    out = tmp_path / "results" / "compression.json"
    arguments = [
        "--tiny", "--layers", "3", "--num-samples", "2", "--seqlen", "16", "--presets", "sparsegpt",
        "--folder", str(tmp_path), "--out", str(out),
    ]  # fmt: skip
    bench.main(arguments)
    result = json.loads(out.read_text())
    assert result["presets"][0]["preset"] == "sparsegpt" and result["presets"][0]["peak_bytes"] > 0
    assert len(result["columns"]) == len(result["lines"][0]) and "seconds per block" in capfd.readouterr().out
    before = out.read_bytes()
    bench.main(arguments)  # nothing is missing
    assert out.read_bytes() == before and list(tmp_path.iterdir()) == [out.parent]


def test_the_clock_tells_kernels_from_products():
    with bench.OpClock() as clock:
        assert clock.seconds == {}
        ops.nm_mask(torch.ones(64, 64), 2, 4)
        assert set(clock.seconds) == {"kernels"}
        torch.ones(64, 64) @ torch.ones(64, 64)
        assert set(clock.seconds) == {"kernels", "products"}
