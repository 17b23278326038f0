"""Dual-shift int4 (g = 64) against dense bf16 and torch's own int4 and int8 linears."""

from prism_kernels.formats import DualShiftWeight
from prism_kernels.nn import DualShiftLinear

from .linears import int4pack_peer, linear_cases, linear_dynamic_peer
from .problems import GROUP_SIZE

OP = "dual_shift_linear"


def cases(quick: bool):
    def pack(weight, generator):
        return DualShiftWeight.pack(weight, bits=4, group_size=GROUP_SIZE, column_scale="rms")

    return linear_cases(OP, DualShiftLinear, pack, (int4pack_peer, linear_dynamic_peer), quick=quick)
