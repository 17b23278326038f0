"""docs/cpu.md and docs/gpu.md claim what was measured, and nothing else."""

import pytest

from bench import figures
from bench.targets import BF16, GPU_MODEL_SPEED, INT4, JOINT, OBS_SWEEP, Target

TARGET = Target(INT4, BF16, {1: 2.8, 4: 2.5}, "cuda", shapes=((14336, 4096),))
CPU, GPU = figures.PAGES


def result(reached, *, m=1, time="2026-01-02 03:04:05 UTC", isa="sm_90", contender=INT4, **problem):
    verdict = {"against": BF16, "asked": 2.8, "reached": reached, "passed": reached >= 2.8}
    row = {"contender": contender, "problem": {"n": 14336, "k": 4096, "m": m} | problem, "verdicts": [verdict]}
    facts = {"machine": "GPU", "time": time, "commit": "0123456789abcdef", "isa": isa, "threads": 2, "cores": 2}
    return {"environment": facts, "rows": [row]}


@pytest.mark.parametrize("page", figures.PAGES, ids=lambda page: page.name)
def test_the_page_is_up_to_date(page):
    text = (figures.DOCS / page.name).read_text("utf-8")
    assert figures.rendered(page, text, figures.results()) == text, "run python -m bench.figures"


@pytest.mark.parametrize("page", figures.PAGES, ids=lambda page: page.name)
def test_every_target_has_its_cells(page):
    verdicts = list(figures.count(page, []))
    assert len(verdicts) > 40
    assert set(verdicts) == {None}
    models = len(GPU_MODEL_SPEED) if page.on_gpu else 0
    assert figures.table(page, []).count(figures.NOT_MEASURED) == len(verdicts) + models


def model_result(*rows):
    """rows: (variant, seconds per token, bytes)."""
    variants = [
        {"variant": name, "seconds_per_token": [seconds], "linear_bytes": size, "dense_linear_bytes": 100}
        for name, seconds, size in rows
    ]
    return {"environment": result(3.0, isa="avx512")["environment"], "layers": 22, "results": variants}


def test_the_model_on_a_cpu_counts_the_faster_way_of_each_side():
    eager = model_result(("dense", 0.4, 100), (INT4, 0.1, 27), (JOINT, 0.2, 24))
    compiled = model_result(("dense", 0.32, 100), (INT4, 0.2, 27))
    lines = figures.table(CPU, [eager, compiled], []).splitlines()
    assert lines[-2].startswith(f"| {INT4} | 3.20 of 3 | 0.27 of 0.29 | GPU, 2026-01-02")
    assert lines[-1].startswith(f"| {JOINT} | **1.60** of 3 | **0.24** of 0.23 |")
    fewer = model_result(("dense", 0.9, 100), (INT4, 0.1, 27)) | {"layers": 2}
    assert figures.NOT_MEASURED in figures.table(CPU, [fewer], [])
    assert list(figures.count(CPU, [eager], [])) == [True, True, False, False]


def test_a_measurement_names_its_device_date_and_commit():
    found = [result(3.0), result(2.4, m=4)]
    line = figures.table(GPU, found, [TARGET]).splitlines()[2]
    assert line.startswith("| dual_shift 4-bit | F.linear bf16 | 14336x4096 | 3.00 of 2.8 | **2.40** of 2.5 |")
    assert line.endswith("| GPU, 2026-01-02, 0123456789 |")
    assert "2.50** of 2.8" in figures.table(GPU, [result(3.0), result(2.5)], [TARGET])  # the newest counts
    assert figures.NOT_MEASURED in figures.table(GPU, [result(3.0)], [TARGET])


def test_results_stay_on_their_page_and_in_their_instruction_set():
    plain = Target(INT4, BF16, {1: 2.8}, "avx2", shapes=((14336, 4096),))
    assert figures.measured(plain, (14336, 4096), 1, [result(3.0, isa="generic")]) == {}
    assert figures.measured(plain, (14336, 4096), 1, [result(3.0, isa="avx2")])[""].reached == 3.0
    assert not CPU.takes(result(3.0)) and GPU.takes(result(3.0))
    one_thread = result(3.0, isa="avx2")
    one_thread["environment"]["threads"] = 1
    assert not CPU.takes(one_thread)


def test_problems_that_differ_in_more_than_tokens_have_lines_of_their_own():
    target = Target(OBS_SWEEP, BF16, {None: 2.8}, "avx512", shapes=((14336, 4096),))
    found = [
        result(value, m=None, isa="avx512", contender=OBS_SWEEP, bits=bits) for value, bits in ((3.0, 0), (2.0, 4))
    ]
    lines = figures.table(CPU, found, [target]).splitlines()
    assert "14336x4096, bits 0 | 3.00 of 2.8" in lines[2]
    assert "14336x4096, bits 4 | **2.00** of 2.8" in lines[3]


def test_the_whole_model_has_its_line():
    facts = result(3.0)["environment"]
    found = [{"environment": facts, "model": [{"variant": INT4, "ratio": 2.5}, {"variant": "dense", "ratio": 1.0}]}]
    assert f"| {INT4} | 2.50 of 2.3 | GPU, 2026-01-02, 0123456789 |" in figures.table(GPU, found, [TARGET])
