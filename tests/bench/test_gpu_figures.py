"""docs/gpu.md claims what was measured, and nothing else."""

from bench import gpu_figures
from bench.targets import BF16, INT4, Target

TARGET = Target(INT4, BF16, {1: 2.8}, "cuda", shapes=((14336, 4096),))


def result(reached, time="2026-01-02 03:04:05 UTC"):
    verdict = {"against": BF16, "asked": 2.8, "reached": reached, "passed": reached >= 2.8}
    row = {"contender": INT4, "problem": {"n": 14336, "k": 4096, "m": 1}, "verdicts": [verdict]}
    facts = {"machine": "GPU", "time": time, "commit": "0123456789abcdef", "isa": "sm_90"}
    return {"environment": facts, "rows": [row]}


def test_the_page_is_up_to_date():
    page = gpu_figures.PAGE.read_text("utf-8")
    assert gpu_figures.rendered(page, gpu_figures.results()) == page, "run python -m bench.gpu_figures"


def test_every_gpu_target_has_a_line():
    lines = gpu_figures.table([]).splitlines()[2:]
    assert len(lines) == len(list(gpu_figures.figures())) > 20
    assert all(line.endswith(f"| {gpu_figures.NOT_MEASURED} |") for line in lines)


def test_a_measurement_names_its_device_date_and_commit():
    figure = (TARGET, (14336, 4096), 1)
    assert gpu_figures.reached(*figure, [result(3.0)]) == "3.00: GPU, 2026-01-02, 0123456789"
    assert gpu_figures.reached(*figure, [result(3.0), result(2.5)]).startswith("2.50 (missed)")
    assert gpu_figures.reached(TARGET, (4096, 4096), 1, [result(3.0)]) == gpu_figures.NOT_MEASURED
