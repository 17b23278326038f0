"""50 % bitmap with int4 survivors (g = 64), exact and with 8-bit activations, against dense, the project's own int4,
which it should beat by its bytes, and torch's int4 and int8."""

from prism_kernels.nn import BitmapDualShiftLinear, DualShiftLinear

from . import gpu_linears, peers
from .linears import INT4_BOUND, linear_cases, packed
from .problems import GROUP_SIZE, Request
from .targets import INT4, INT4_A8, JOINT, JOINT_A8

OP = "bitmap_dual_shift_linear"
OPTIONS = {"bits": 4, "group_size": GROUP_SIZE, "bound": INT4_BOUND}


def cases(request: Request):
    def make(weight, mask):
        return [
            packed(JOINT, BitmapDualShiftLinear, weight, mask, **OPTIONS),
            packed(JOINT_A8, BitmapDualShiftLinear, weight, mask, activation_bits=8, **OPTIONS),
            packed(INT4, DualShiftLinear, weight, mask, **OPTIONS),
            packed(INT4_A8, DualShiftLinear, weight, mask, activation_bits=8, **OPTIONS),
            peers.int4pack(weight),
            peers.linear_dynamic(weight),
        ]

    return linear_cases(OP, make, request)


def gpu_cases(request: Request):
    def make(weight, mask):
        return [
            *gpu_linears.both_backends(JOINT, BitmapDualShiftLinear, weight, mask, **OPTIONS),
            gpu_linears.packed(INT4, DualShiftLinear, weight, mask, **OPTIONS),
            gpu_linears.tinygemm(weight),
        ]

    return gpu_linears.linear_cases(OP, make, request)
