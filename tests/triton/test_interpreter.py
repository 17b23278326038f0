"""Runs the tests of `interpreted/` under Triton's interpreter, which has to be chosen before triton is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

HERE = Path(__file__).parent


def run(marker: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", marker, HERE / "interpreted"]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    result = subprocess.run(command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True)
    assert result.returncode == 0 and " passed" in result.stdout, result.stdout[-8000:] + result.stderr[-2000:]


def test_kernels_match_the_reference_under_the_interpreter():
    run("not slow")


@pytest.mark.slow
def test_kernels_match_the_reference_on_every_grid():
    run("slow")
