"""Dual-shift int4 (g = 64), exact and with 8-bit activations, against dense and torch's own int4 and int8 linears."""

from prism_kernels.nn import DualShiftLinear

from . import gpu_linears, peers
from .linears import INT4_BOUND, linear_cases, packed
from .problems import GROUP_SIZE, Request
from .targets import INT4, INT4_A8

OP = "dual_shift_linear"
OPTIONS = {"bits": 4, "group_size": GROUP_SIZE, "bound": INT4_BOUND}


def cases(request: Request):
    def make(weight, mask):
        return [
            packed(INT4, DualShiftLinear, weight, **OPTIONS),
            packed(INT4_A8, DualShiftLinear, weight, activation_bits=8, **OPTIONS),
            peers.int4pack(weight),
            peers.linear_dynamic(weight),
            peers.int8pack(weight),
            peers.dense_bf16_in_huge_pages(weight),
            peers.dense_fp32(weight),
        ]

    return linear_cases(OP, make, request, mask_of=None)


def gpu_cases(request: Request):
    def make(weight, mask):
        return [*gpu_linears.both_backends(INT4, DualShiftLinear, weight, **OPTIONS), gpu_linears.tinygemm(weight)]

    return gpu_linears.linear_cases(OP, make, request, mask_of=None)
