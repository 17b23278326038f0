"""`dispatch.on_triton`: the public functions run Triton kernels inside, with their gradients, and their own outside."""

import torch

from dual_shift_cases import make_packed
from prism_kernels import dispatch, ops, triton
from prism_kernels.nn import DualShiftLinear
from prism_kernels.testing import assert_matches


def launched(monkeypatch):
    calls = []
    kernel = triton.kernel
    monkeypatch.setattr(triton, "kernel", lambda op: calls.append(op) or kernel(op))
    return calls


def test_ops_run_their_triton_kernel_inside(monkeypatch, generator):
    calls = launched(monkeypatch)
    grid = {"n": 18, "bits": 4, "group_size": 32}
    packed, x = make_packed(18, 70, 4, 32, "uniform"), torch.randn(3, 70, generator=generator, requires_grad=True)
    outside = ops.dual_shift_linear(x, *packed, **grid)
    assert calls == []
    with dispatch.on_triton():
        inside = ops.dual_shift_linear(x, *packed, **grid)
        inside.sum().backward()
    assert calls == ["dual_shift_linear", "dual_shift_dequantize"]
    assert_matches(inside.detach(), outside.detach().double(), 70)
    assert x.grad is not None


def test_modules_run_their_triton_kernel_inside(monkeypatch, generator):
    calls = launched(monkeypatch)
    module = DualShiftLinear.from_linear(torch.nn.Linear(64, 20), bits=4, group_size=64)
    with dispatch.on_triton(), torch.inference_mode():
        module.fused(torch.randn(2, 64, generator=generator))
    assert calls == ["dual_shift_linear"]
