"""Bitmap bf16 at 50 % sparsity against dense and the CSR of torch and scipy."""

from prism_kernels.nn import BitmapLinear

from . import gpu_linears, peers
from .linears import linear_cases, packed
from .problems import Request
from .targets import BITMAP

OP = "bitmap_linear"


def cases(request: Request):
    def make(weight, mask):
        return [
            packed(BITMAP, BitmapLinear, weight, mask),
            peers.dense_fp32(weight),
            peers.torch_csr(weight),
            peers.scipy_csr(weight),
        ]

    return linear_cases(OP, make, request)


def gpu_cases(request: Request):
    def make(weight, mask):
        return [*gpu_linears.both_backends(BITMAP, BitmapLinear, weight, mask)]

    return gpu_linears.linear_cases(OP, make, request)
