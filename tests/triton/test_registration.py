"""Which kernel fills a CUDA slot: decided once, at load, in fresh processes that are told of a GPU they do not have."""

import importlib.util
import os
import subprocess
import sys

import pytest

from prism_kernels import dispatch, triton

PRETEND = """
import sys, torch
torch.cuda.is_available, torch.version.cuda = lambda: True, "13.0"
"""


def run(code, **env):
    environment = os.environ | {"PRISM_BACKEND": "triton"} | env
    return subprocess.run([sys.executable, "-c", PRETEND + code], env=environment, capture_output=True, text=True)


def test_ops_are_defined_ops():
    assert set(triton.OPS) <= set(dispatch.OP_NAMES)
    assert {"dual_shift_dequantize", "dual_shift_linear"} <= set(triton.OPS)


def test_a_compiled_kernel_stays_unless_triton_was_measured_to_be_faster():
    op = "dual_shift_linear"
    assert dispatch.choose_triton(op, compiled=False, measured={})
    assert not dispatch.choose_triton(op, compiled=True, measured={})
    assert not dispatch.choose_triton(op, compiled=True, measured={op: "cuda"})
    assert dispatch.choose_triton(op, compiled=True, measured={op: "triton"})
    assert not dispatch.choose_triton("bitmap_pack", compiled=False, measured={"bitmap_pack": "triton"})


def test_the_shipped_table_names_backends_of_ops_that_have_both():
    table = dispatch._TABLE["gpu_backends"]
    assert set(table) <= set(triton.OPS) and set(table.values()) <= {"cuda", "triton"}


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_triton_fills_the_slots_that_are_free():
    code = """
from prism_kernels import dispatch, triton
rows = [row for row in dispatch.explain() if row.device == "cuda"]
for row in rows:
    served = row.op in triton.OPS
    assert dispatch.has_kernel(row.op, "cuda") == served and not dispatch.has_compiled(row.op, "cuda")
    assert row.backend == ("Triton" if served else "torch reference"), row
    assert "PRISM_BACKEND=triton" in row.reason, row
assert dispatch.crossover("dual_shift_linear", "cuda") == dispatch._TABLE["crossovers"]["triton"]["dual_shift_linear"]
assert "triton" not in sys.modules, "triton is imported by its first kernel"
print(len(rows))
"""
    result = run(code)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) == len(dispatch.OP_NAMES)
    assert "Overriding" not in result.stderr


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_a_filled_slot_changes_hands_for_measurements_alone_and_once():
    code = """
from prism_kernels import dispatch
library = torch.library.Library("prism", "IMPL")
dispatch._triton_serves.clear()
for op in dispatch.OP_NAMES:  # stands for the compiled library
    if not dispatch.has_kernel(op, "cuda"):
        library.impl(op, lambda *arguments: None, "CUDA")
dispatch._register_triton()
assert dispatch._triton_serves == {}
dispatch._TABLE["gpu_backends"]["nm_mask"] = "triton"
dispatch._register_triton()
print(dispatch._triton_serves)
dispatch._register_triton()
"""
    result = run(code, PRISM_BACKEND="torch")
    assert "{'nm_mask': 'measured to be faster than CUDA C++'}" in result.stdout, result.stderr
    assert "the Triton kernel of nm_mask must be registered once, got a second time" in result.stderr
    assert "Overriding" not in result.stderr


def test_without_triton_the_reference_serves():
    code = """
sys.modules["triton"] = None
from prism_kernels import dispatch
row = dispatch.explain("dual_shift_linear")[-1]
print(row.backend, row.reason)
"""
    result = run(code)
    assert "torch reference _C_cuda skipped (PRISM_BACKEND=triton), Triton not installed" in result.stdout, (
        result.stderr
    )


def test_a_broken_triton_raises(tmp_path):
    (tmp_path / "triton").mkdir()
    (tmp_path / "triton" / "__init__.py").write_text("raise ImportError('triton is broken')\n")
    code = """
from prism_kernels import triton
triton.kernel("dual_shift_linear")
"""
    result = run(code, PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    assert result.returncode != 0 and "triton is broken" in result.stderr


def test_an_unknown_backend_is_refused():
    result = run("import prism_kernels", PRISM_BACKEND="cuda")
    assert "PRISM_BACKEND must be one of auto, triton, torch, got 'cuda'" in result.stderr
