"""Fixtures for all tests: forced instruction sets, poisoned outputs, and an offline Hugging Face."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch

from prism_kernels import dispatch
from prism_kernels._extension import STATUS, host
from prism_kernels.testing import poisoned_empty

ISAS = host.supported_isas() if host and STATUS["_C"] == "loaded" else []


class ForcedIsa:
    """The instruction set that this test runs under, and the proof that a kernel of it ran."""

    def __init__(self, name: str) -> None:
        self.name = name

    def assert_served(self, op: str, *, best: str | None = None) -> None:
        """The last compiled kernel was `op`'s, in the forced ISA, or in `best` where the op's own best is below it."""
        expected = self.name
        if best is not None and self.name in ISAS and best in ISAS:
            expected = ISAS[min(ISAS.index(self.name), ISAS.index(best))]
        assert dispatch.last_kernel() == f"{op}:{expected}", dispatch.last_kernel()


@pytest.fixture(params=ISAS or [pytest.param("reference", marks=pytest.mark.skip("needs the compiled library _C"))])
def isa(request):
    """Runs the test once under each instruction set of this CPU."""
    assert dispatch.force_isa(request.param) == request.param
    yield ForcedIsa(request.param)
    dispatch.force_isa("auto")


@pytest.fixture
def poison():
    """Fresh tensors hold NaN, so that a kernel that leaves an element unwritten fails."""
    with poisoned_empty():
        yield


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(20260101)
