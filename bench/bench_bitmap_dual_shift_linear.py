"""50 % bitmap with int4 survivors (g = 64) against dense bf16 and torch's own int4."""

from prism_kernels.formats import BitmapDualShiftWeight
from prism_kernels.nn import BitmapDualShiftLinear

from .linears import int4pack_peer, linear_cases, random_mask
from .problems import GROUP_SIZE

OP = "bitmap_dual_shift_linear"


def cases(quick: bool):
    def pack(weight, generator):
        mask = random_mask(*weight.shape, generator)
        return BitmapDualShiftWeight.pack(weight, mask, bits=4, group_size=GROUP_SIZE, column_scale="rms")

    return linear_cases(OP, BitmapDualShiftLinear, pack, (int4pack_peer,), quick=quick)
