"""The shipped table of crossovers, and what "never" in it means."""

import json
from pathlib import Path

import pytest
import torch

import prism_kernels
from prism_kernels import dispatch
from prism_kernels.ops._define import OP_NAMES

TABLE = json.loads((Path(prism_kernels.__file__).parent / "crossovers.json").read_text())


def test_the_table_covers_every_linear():
    linears = {op for op in OP_NAMES if op.endswith("_linear")}
    assert set(TABLE["crossovers"]) == {"generic", "avx2", "avx512", "avx512_bf16", "cuda", "triton"}
    for isa, row in TABLE["crossovers"].items():
        assert set(row) == linears, isa
        for op, m in row.items():
            assert m == "never" or (isinstance(m, int) and m >= 1), (isa, op, m)


def test_never_is_fused_for_every_m(monkeypatch):
    op = "dual_shift_linear"
    monkeypatch.setattr(dispatch, "has_kernel", lambda op, device: True)
    monkeypatch.setitem(dispatch._crossovers, (op, "cpu"), dispatch._NEVER)
    assert not dispatch.prefers_dense(op, torch.empty(2**20, 3))
    assert dispatch.explain(op)[0].reason == "fused for every m"
    monkeypatch.setitem(dispatch._crossovers, (op, "cpu"), 5)
    assert [dispatch.prefers_dense(op, torch.empty(m, 3)) for m in (4, 5)] == [False, True]
    assert dispatch.explain(op)[0].reason.startswith("fused below m = 5")


def test_float32_has_its_own_crossover_where_it_misses_tensor_cores(monkeypatch):
    assert set(TABLE["cuda_float32"]) <= set(TABLE["crossovers"]["cuda"])
    op = "dual_shift_linear"
    monkeypatch.setitem(dispatch._crossovers, (op, "cpu"), 9)
    monkeypatch.setitem(dispatch._float32_crossovers, (op, "cpu"), 3)
    assert [dispatch.prefers_dense(op, torch.empty(m, 5)) for m in (2, 3)] == [False, True]
    assert [dispatch.prefers_dense(op, torch.empty(m, 5).bfloat16()) for m in (8, 9)] == [False, True]


def test_explain_refuses_an_unknown_op():
    with pytest.raises(ValueError, match=r"explain: op must be one of .*, got 'matmul'"):
        dispatch.explain("matmul")
