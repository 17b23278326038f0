"""sparse24_dual_shift_dequantize on the device against the reference on the CPU, bit for bit."""

import pytest
import torch

from prism_kernels import ops
from prism_kernels.reference.sparse24_dual_shift_dequantize import sparse24_dual_shift_dequantize as reference
from sparse24_problems import GROUPS, codes

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SHAPES = ((1, 1), (3, 5), (17, 66), (33, 200), (304, 1040))


def check(n, k, group_size, dtype, generator):
    weight = codes(n, k, group_size, generator)
    expected = reference(*weight.tensors, n, group_size, dtype)
    tensors = [t.cuda() for t in weight.tensors]
    actual = ops.sparse24_dual_shift_dequantize(*tensors, n=n, group_size=group_size, dtype=dtype)
    assert torch.equal(actual.cpu(), expected), (n, k, group_size, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equals_the_reference(poison, generator, dtype):
    for n, k in SHAPES:
        for group_size in GROUPS:
            check(n, k, group_size, dtype, generator)


def test_sanitized_odd_shape(generator):
    check(17, 66, 32, torch.bfloat16, generator)
    check(17, 66, 96, torch.float32, generator)


def test_captures_and_compiles(captured, generator):
    weight = codes(33, 200, 64, generator)
    *rows, column_scale = (t.cuda() for t in weight.tensors)
    other = column_scale.flip(0).contiguous()

    def call(factors):
        return ops.sparse24_dual_shift_dequantize(*rows, factors, n=33, group_size=64, dtype=torch.bfloat16)

    expected = call(other)
    assert torch.equal(torch.compile(call, fullgraph=True)(other), expected)
    assert torch.equal(captured(call, column_scale.clone(), other), expected)
