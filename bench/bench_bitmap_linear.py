"""Bitmap bf16 at 50 % sparsity against dense bf16."""

from prism_kernels.formats import BitmapWeight
from prism_kernels.nn import BitmapLinear

from .linears import linear_cases, random_mask

OP = "bitmap_linear"


def cases(quick: bool):
    def pack(weight, generator):
        return BitmapWeight.pack(weight, random_mask(*weight.shape, generator))

    return linear_cases(OP, BitmapLinear, pack, quick=quick)
