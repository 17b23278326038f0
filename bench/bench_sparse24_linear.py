"""2:4 weights in bf16 and with int4 survivors (g = 64) against dense and the project's own int4."""

import torch

from prism_kernels import ops
from prism_kernels.nn import DualShiftLinear, Sparse24DualShiftLinear, Sparse24Linear

from . import gpu_linears
from .linears import INT4_BOUND, linear_cases, packed
from .problems import GROUP_SIZE, Request
from .targets import INT4, SPARSE24, SPARSE24_INT4, SPARSE24_INT4_A8

OP = "sparse24_linear"
OPTIONS = {"bits": 4, "group_size": GROUP_SIZE, "bound": INT4_BOUND}


def mask_24(n: int, k: int, generator: torch.Generator) -> torch.Tensor:
    return ops.nm_mask(torch.rand(n, k, generator=generator), 2, 4)


def cases(request: Request):
    def make(weight, mask):
        return [
            packed(SPARSE24, Sparse24Linear, weight, mask),
            packed(SPARSE24_INT4, Sparse24DualShiftLinear, weight, mask, **OPTIONS),
            packed(SPARSE24_INT4_A8, Sparse24DualShiftLinear, weight, mask, activation_bits=8, **OPTIONS),
            packed(INT4, DualShiftLinear, weight, mask, **OPTIONS),
        ]

    return linear_cases(OP, make, request, mask_of=mask_24)


def gpu_cases(request: Request):
    def make(weight, mask):
        linears = [
            gpu_linears.packed(SPARSE24, Sparse24Linear, weight, mask),
            gpu_linears.packed(SPARSE24_INT4, Sparse24DualShiftLinear, weight, mask, **OPTIONS),
            gpu_linears.packed(INT4, DualShiftLinear, weight, mask, **OPTIONS),
            gpu_linears.cusparselt(weight),
        ]
        return [linear for linear in linears if linear is not None]

    return gpu_linears.linear_cases(OP, make, request, mask_of=mask_24)
