"""The benchmark harness: it refuses what is wrong, rotates distinct memory, and judges by the targets file."""

import importlib
import json
import math

import pytest
import torch

from bench import linears, peers, targets
from bench.__main__ import OPS, parse_shape
from bench.harness import ROTATION_BYTES, Case, Contender, copies_for, measure
from bench.linears import INT4_BOUND, linear_cases, packed
from bench.page import write_page
from bench.problems import Request, random_mask
from prism_kernels.nn import BitmapLinear, DualShiftLinear

REQUEST = Request({"small": (128, 192)}, (1, 3))


@pytest.fixture(autouse=True)
def small_rotation(monkeypatch):
    for module in (linears, peers):
        monkeypatch.setattr(module, "copies_for", lambda nbytes, device="cpu": 2)


def cases(*makers):
    return list(linear_cases("op", lambda weight, mask: [make(weight, mask) for make in makers], REQUEST))


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_cases(op):
    assert next(iter(importlib.import_module(f"bench.bench_{op}").cases(REQUEST))).contenders


def test_a_wrong_contender_is_refused_and_not_timed(monkeypatch):
    monkeypatch.setattr(BitmapLinear, "forward", lambda self, x: x.new_ones(*x.shape[:-1], self.out_features))
    made = cases(
        lambda w, m: packed("bad", BitmapLinear, w, m),
        lambda w, m: packed("good", DualShiftLinear, w, m, bound=INT4_BOUND, bits=4, group_size=64),
    )
    for case in made:
        dense, bad, good = measure(case, rounds=2)
        assert "max error" in bad.error and math.isnan(bad.median_ms) and bad.rounds == 0
        assert not good.error and good.rounds == 2 and good.median_ms > 0 and dense.ratio == 1


def test_a_wrong_large_result_is_refused_though_the_small_one_is_right(monkeypatch):
    real = BitmapLinear.forward

    def forward(self, x):
        y = real(self, x)
        return y if self.out_features < 100 else y.roll(1, -1)

    monkeypatch.setattr(BitmapLinear, "forward", forward)
    _, bad = measure(cases(lambda w, m: packed("bad", BitmapLinear, w, m))[0], rounds=1)
    assert "against the dense product" in bad.error


def test_every_peer_computes_the_product_on_memory_of_its_own():
    names = ("dense_fp32", "int4pack", "linear_dynamic", "int8pack", "torch_csr", "scipy_csr")
    for case in cases(*(lambda w, m, name=name: getattr(peers, name)(w) for name in names)):
        rows = measure(case, rounds=1)
        assert [row.error for row in rows] == [""] * len(rows), [row.error for row in rows]
        assert len(rows) == 1 + len(names)
    weight = torch.randn(64, 64).bfloat16()
    first, second = peers.int8pack(weight).copies
    assert first[0].data_ptr() != second[0].data_ptr()


def test_copies_exceed_the_caches():
    for device, rotated in ROTATION_BYTES.items():
        for nbytes in (1, 10**6, rotated - 1, rotated, 10**9):
            assert copies_for(nbytes, device) * nbytes >= rotated and copies_for(nbytes, device) >= 2


def test_a_slow_contender_sits_rounds_out():
    import time

    contenders = [
        Contender("fast", [lambda: None], 1),
        Contender("slow", [lambda: time.sleep(0.01)], 1),
    ]
    fast, slow = measure(Case("op", {"n": 1, "k": 1}, contenders), rounds=40, budget_s=0.16)
    assert fast.rounds == 40 and 5 <= slow.rounds <= 8


@pytest.mark.parametrize(("shape", "asked"), [((14336, 4096), 6.5), ((4096, 4096), 5.2)])
def test_verdicts_follow_the_targets(shape, asked):
    problem = {"n": shape[0], "k": shape[1], "m": 1}
    medians = {targets.BF16: 10.0, targets.INT4PACK: 3.0, targets.INT4: 10 / 6.0}
    found = targets.verdicts("op", targets.INT4, problem, medians, "avx512_bf16")
    assert [(v.against, v.asked, v.passed) for v in found] == [
        (targets.BF16, asked, asked <= 6.0),
        (targets.INT4PACK, 1.2, True),
    ]
    assert found[0].reached == pytest.approx(6.0)
    assert targets.verdicts("op", targets.INT4, problem, medians, "avx512") == []
    medians[targets.INT4] = math.nan
    assert not any(v.passed for v in targets.verdicts("op", targets.INT4, problem, medians, "avx512_bf16"))


def test_the_page_holds_every_result(tmp_path):
    rows = [
        row for case in cases(lambda w, m: packed("bitmap <b>", BitmapLinear, w, m)) for row in measure(case, rounds=2)
    ]
    rows[1].error = "wrong & refused"
    facts = {"machine": "cpu", "threads": 1, "isa": "x", "torch": "2", "load_average": 0.0, "time": "now",
             "stream_gbps": 10.0, "bf16_gflops": 100, "fp32_gflops": 50}  # fmt: skip
    result = {"op": "op", "about": "about", "environment": facts, "rows": [row.to_dict() for row in rows]}
    (tmp_path / "op.json").write_text(json.dumps(result))
    table = {"about": "a model", "environment": facts, "columns": ["variant"], "lines": [["dense"]]}
    (tmp_path / "model.json").write_text(json.dumps(table))
    page = write_page(tmp_path).read_text()
    assert "REFUSED: wrong &amp; refused" in page and "bitmap &lt;b&gt;" in page and page.count("<svg") == 1
    assert "<td>dense</td>" in page


def test_shapes_of_the_command_line():
    assert parse_shape("4096x14336") == (4096, 14336) and parse_shape("mlp_up") == (14336, 4096)
    for text in ("4096", "axb", "100x64", "64x100", "0x64"):
        with pytest.raises(Exception, match="must"):
            parse_shape(text)


def test_masks_have_the_asked_density():
    mask = random_mask(256, 256, torch.Generator().manual_seed(0), sparsity=0.7)
    assert float(mask.float().mean()) == pytest.approx(0.3, abs=0.01)
