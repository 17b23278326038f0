"""Which GPU backend serves an op is read from measurements of both, and from nothing else."""

import json

from bench import gpu_backends
from bench.targets import INT4, ON_TRITON


def row(median, *, m=1, name=INT4, served_by="CUDA C++, fused", error=""):
    problem = {"n": 4096, "k": 4096, "m": m}
    return {"op": "dual_shift_linear", "contender": name, "problem": problem, "median_ms": median} | {
        "served_by": served_by,
        "error": error,
    }


def choice(*rows):
    return gpu_backends.choose(gpu_backends.ratios([{"rows": list(rows)}]))


def on_triton(median, **options):
    return row(median, name=INT4 + ON_TRITON, served_by="Triton, fused", **options)


def test_the_faster_one_serves():
    assert choice(row(2.0), on_triton(1.0)) == {"dual_shift_linear": "triton"}
    assert choice(row(1.0), on_triton(2.0)) == {"dual_shift_linear": "cuda"}
    assert choice(row(1.0), on_triton(0.98)) == {"dual_shift_linear": "cuda"}  # within the margin
    assert choice(row(2.0), on_triton(1.0), row(1.0, m=4), on_triton(3.0, m=4)) == {"dual_shift_linear": "cuda"}


def test_what_was_not_compared_decides_nothing():
    assert choice(row(2.0)) == {}
    assert choice(row(2.0), on_triton(1.0, m=4)) == {}
    assert choice(row(2.0, served_by="CUDA C++, decode + GEMM"), on_triton(1.0)) == {}
    assert choice(row(2.0, served_by="Triton, fused"), on_triton(1.0)) == {}
    assert choice(row(2.0, error="wrong"), on_triton(1.0)) == {}


def test_a_refused_triton_kernel_loses():
    assert choice(row(2.0), on_triton(float("nan"), error="wrong")) == {"dual_shift_linear": "cuda"}


def test_the_table_is_written(tmp_path, monkeypatch):
    table = tmp_path / "crossovers.json"
    table.write_text(json.dumps({"gpu_backends": {"sinkhorn": "triton"}}))
    monkeypatch.setattr(gpu_backends, "TABLE", table)
    (tmp_path / "result.json").write_text(json.dumps({"rows": [row(2.0), on_triton(1.0)]}))
    assert gpu_backends.main(tmp_path) == 0
    assert json.loads(table.read_text())["gpu_backends"] == {"sinkhorn": "triton", "dual_shift_linear": "triton"}
