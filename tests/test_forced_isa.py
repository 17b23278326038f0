"""PRISM_CPU_ISA is obeyed, proven in fresh processes; an unknown name is an error."""

import os
import subprocess
import sys

import pytest

from prism_kernels._extension import STATUS, host

ISAS = host.supported_isas() if host and STATUS["_C"] == "loaded" else []

PROBE = """
import torch, prism_kernels
from prism_kernels import dispatch, ops
ops.nm_mask(torch.randn(4, 64), 2, 4)
print(dispatch.cpu_isa(), dispatch.last_kernel())
"""


def run(**env):
    return subprocess.run([sys.executable, "-c", PROBE], env=os.environ | env, capture_output=True, text=True)


@pytest.mark.parametrize("name", [i for i in ISAS if i != "avx512_bf16"])
def test_environment_forces_isa(name):
    result = run(PRISM_CPU_ISA=name)
    assert result.stdout.split() == [name, f"nm_mask:{name}"], result.stderr


@pytest.mark.skipif(not ISAS, reason="needs the compiled library _C")
def test_unknown_isa_is_an_error():
    result = run(PRISM_CPU_ISA="sse9")
    assert result.returncode != 0
    assert "PRISM_CPU_ISA must be generic, avx2, avx512 or avx512_bf16, got 'sse9'" in result.stderr


def test_reference_backend_serves_without_libraries():
    result = run(PRISM_BACKEND="torch")
    assert result.stdout.split() == ["reference"], result.stderr
