"""dual_shift_dequantize on the device against the reference on the CPU, bit for bit."""

import pytest
import torch

from dual_shift_cases import GRIDS, GROUP_SIZES, make_packed
from prism_kernels import dispatch, ops
from prism_kernels.reference.dual_shift_dequantize import dual_shift_dequantize as reference

pytestmark = pytest.mark.gpu

SHAPES = [(1, 1), (3, 7), (5, 63), (17, 130), (0, 16), (3, 0), (33, 256), (16, 1000)]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def check(n, k, bits, codebook, group_size, dtype, device):
    packed = make_packed(n, k, bits, group_size, codebook)
    grid = {"n": n, "bits": bits, "group_size": group_size, "codebook": codebook, "dtype": dtype}
    actual = ops.dual_shift_dequantize(*(t.to(device) for t in packed), **grid)
    expected = reference(*packed, n, bits, group_size, codebook, dtype)
    assert torch.equal(actual.cpu(), expected), (n, k, bits, codebook, group_size, dtype)


def test_has_a_compiled_kernel():
    assert dispatch.has_compiled("dual_shift_dequantize", "cuda")


def test_sanitized_odd_shape(device):
    check(33, 203, 5, "uniform", 48, torch.bfloat16, device)
    check(18, 72, 3, "nf3", 64, torch.float32, device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_matches_reference(poison, device, dtype):
    for n, k in SHAPES:
        for bits, codebook in GRIDS:
            for group_size in GROUP_SIZES:
                check(n, k, bits, codebook, group_size, dtype, device)


def test_captures_and_compiles(device, captured):
    first, second = (make_packed(33, 256, bits, 64, "uniform")[0] for bits in (4, 4))
    _, *others = (t.to(device) for t in make_packed(33, 256, 4, 64, "uniform"))

    def decode(codes):
        return ops.dual_shift_dequantize(codes, *others, n=33, bits=4, group_size=64, dtype=torch.bfloat16)

    codes, flipped = first.to(device), (second ^ 5).to(device)
    expected = decode(flipped)
    assert torch.equal(torch.compile(decode, fullgraph=True)(flipped), expected)
    assert torch.equal(captured(decode, codes, flipped), expected)
