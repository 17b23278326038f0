"""bitmap_linear and bitmap_unpack in Triton, on the odd shapes and masks of the ops' suites."""

import itertools

import pytest
import torch

from bitmap_problems import FLOATS, SHAPES, masks
from prism_kernels.reference.bitmap_pack import bitmap_pack
from prism_kernels.reference.bitmap_unpack import bitmap_unpack as unpack_reference
from prism_kernels.testing import assert_matches
from prism_kernels.triton.bitmap_linear import bitmap_linear
from prism_kernels.triton.bitmap_unpack import bitmap_unpack


def test_unpack_matches_reference(poison, generator):
    for i, (n, k) in enumerate(SHAPES[::2]):
        for name, mask in itertools.islice(masks(n, k, generator), i % 4, None, 4):
            packed = bitmap_pack(torch.randn(n, k, generator=generator).to(FLOATS[i % 3]), mask)
            assert torch.equal(bitmap_unpack(*packed, n, k), unpack_reference(*packed, n, k)), (n, k, name)


def test_some_panels_of_a_weight(generator):
    weight = torch.randn(60, 70, generator=generator) * (torch.rand(60, 70, generator=generator) < 0.4)
    bitmap, values, offsets = bitmap_pack(weight)
    assert torch.equal(bitmap_unpack(bitmap[1:3], values, offsets[1:4], 32, 70), weight[16:48])


def test_linear_matches_float64(poison, generator):
    for i, (n, k) in enumerate(SHAPES[1::2]):
        for j, (_, mask) in enumerate(itertools.islice(masks(n, k, generator), i % 4, None, 4)):
            dtype, m = FLOATS[(i + j) % 3], (1, 3, 17)[j % 3]
            stored = dtype if j % 3 else torch.bfloat16
            weight = torch.randn(n, k, generator=generator).to(stored) * mask
            x = torch.randn(m, k, generator=generator).to(dtype)
            bias = torch.randn(n, generator=generator).to(dtype) if j % 2 else None
            y = bitmap_linear(x, *bitmap_pack(weight, mask), bias, n)
            assert y.dtype == dtype
            assert_matches(y, x.double() @ weight.double().T + (0 if bias is None else bias.double()), k)


@pytest.mark.parametrize("m", [0, 20])
def test_parts_of_k(poison, generator, m):
    weight = torch.randn(70, 700, generator=generator).bfloat16() * (torch.rand(70, 700, generator=generator) < 0.5)
    x = torch.randn(m, 700, generator=generator).bfloat16()
    assert_matches(bitmap_linear(x, *bitmap_pack(weight), None, 70), x.double() @ weight.double().T, 700)
