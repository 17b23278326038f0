"""bitmap_dual_shift_linear and _dequantize in Triton, on the odd shapes and masks of the ops' suites."""

import itertools

import pytest
import torch

from bitmap_problems import FLOATS, GRIDS, GROUPS, SHAPES, dual_shift, masks, mixed_mask
from prism_kernels.reference.activations import quantize_activations
from prism_kernels.reference.bitmap_dual_shift_dequantize import bitmap_dual_shift_dequantize as reference
from prism_kernels.testing import assert_matches
from prism_kernels.triton.bitmap_dual_shift_dequantize import bitmap_dual_shift_dequantize
from prism_kernels.triton.bitmap_dual_shift_linear import bitmap_dual_shift_linear


def test_decodes_as_the_reference(poison, generator):
    grids, groups = itertools.cycle(GRIDS), itertools.cycle(GROUPS)
    for i, (n, k) in enumerate(SHAPES[::2]):
        for name, mask in itertools.islice(masks(n, k, generator), i % 5, None, 5):
            weight = dual_shift(mask, *(bits := next(grids))[:1], next(groups), bits[1], generator)
            for dtype in FLOATS[i % 3 :][:1]:
                grid = *weight.grid.values(), dtype
                actual = bitmap_dual_shift_dequantize(*weight.tensors, *grid)
                assert torch.equal(actual, reference(*weight.tensors, *grid)), (n, k, name, weight.grid)


def check(n, k, m, mask, bits, codebook, group_size, dtype, generator, activation_bits=None):
    weight = dual_shift(mask, bits, group_size, codebook, generator)
    x = torch.randn(m, k, generator=generator).to(dtype)
    bias = torch.randn(n, generator=generator).to(dtype) if bits % 2 else None
    y = bitmap_dual_shift_linear(x, *weight.tensors, bias, n, bits, group_size, codebook, activation_bits)
    if activation_bits is not None:
        whole, token_scale = quantize_activations(x, weight.column_scale)
        exact = token_scale.double() * (whole.double() @ weight.unscaled.T)
    else:
        rounded = torch.float32 if group_size % 32 else dtype  # factors on tensor cores; levels to bfloat16 or exact
        scaled = (x.float() * weight.column_scale.float()).to(rounded).double()
        exact = scaled @ (weight.rounded if rounded == torch.bfloat16 else weight.unscaled).T
    assert y.dtype == dtype
    assert_matches(y, exact if bias is None else exact + bias.double(), k)


def test_linear_matches_float64(poison, generator):
    grids, groups = itertools.cycle(GRIDS), itertools.cycle((64, 32, 128, 5, 48, 5000))
    for i, (n, k) in enumerate(SHAPES[1::2]):
        for j, (_, mask) in enumerate(itertools.islice(masks(n, k, generator), i % 4, None, 4)):
            bits, codebook = next(grids)
            dtype = FLOATS[(i + j) % 3]
            if codebook != "uniform" and dtype == torch.float16:
                dtype = torch.bfloat16
            check(n, k, (1, 3, 17)[j], mask, bits, codebook, next(groups), dtype, generator)


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_8_bit_activations(poison, generator, bits):
    mask = mixed_mask(33, 140, generator)
    check(33, 140, 2, mask, bits, "uniform", 32, torch.bfloat16, generator, activation_bits=8)


@pytest.mark.parametrize("m", [0, 3])
def test_parts_of_k(poison, generator, m):
    mask = torch.rand(70, 700, generator=generator) < 0.5
    check(70, 700, m, mask, 4, "uniform", 64, torch.bfloat16, generator)
