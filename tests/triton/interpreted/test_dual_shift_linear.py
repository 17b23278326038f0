"""dual_shift_linear in Triton against the float64 reference, on the odd shapes of the op's suite."""

import pytest
import torch

from dual_shift_cases import GRIDS, make_exact, make_packed
from prism_kernels.reference.activations import quantize_activations
from prism_kernels.reference.codebooks import levels
from prism_kernels.reference.dual_shift_unpack import dual_shift_unpack
from prism_kernels.reference.panels import panels_to_rows
from prism_kernels.testing import LINEAR_PROBLEMS, LinearProblem, assert_matches
from prism_kernels.triton.dual_shift_linear import dual_shift_linear

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
#: Steps of 4, 2 and 1 blocks; groups of one column, odd, and longer than a row.
GROUP_SIZES = (64, 32, 128, 4096, 1, 48, 100, 5)


def exact_weight(key, packed, rounded):
    """float64 [n, k] without its column scale; the levels of a codebook rounded to `rounded`."""
    n, k, bits, group_size, codebook = key
    if codebook == "uniform":
        return make_exact(*key)
    steps = levels(codebook).to(rounded).double()[dual_shift_unpack(packed[0], n, k, bits).int()]
    return steps * panels_to_rows(packed[1], n).double()[:, torch.arange(k) // group_size]


def check(problem, dtype, bits, codebook, group_size, generator, activation_bits=None):
    x = torch.randn(problem.m, problem.k, generator=generator).to(dtype)
    bias = torch.randn(problem.n, generator=generator).to(dtype) if bits % 2 else None
    key = (problem.n, problem.k, bits, group_size, codebook)
    packed = make_packed(*key)
    y = dual_shift_linear(x, *packed, bias, problem.n, bits, group_size, codebook, activation_bits)
    if activation_bits is not None:
        whole, token_scale = quantize_activations(x, packed[3])
        exact = token_scale.double() * (whole.double() @ make_exact(*key).T)
    else:
        # On tensor cores, x * column_scale and the levels are factors in x.dtype; all else is exact or float32.
        rounded = torch.float32 if group_size % 32 else dtype
        scaled = (x.float() * packed[3].float()).to(rounded).double()
        exact = scaled @ exact_weight(key, packed, rounded).T
    assert y.dtype == dtype and y.is_contiguous()
    assert_matches(y, exact if bias is None else exact + bias.double(), problem.k)


@pytest.mark.parametrize("problem", LINEAR_PROBLEMS, ids=lambda p: p.id)
def test_matches_reference(poison, generator, problem):
    """Three of the grids on each shape, all of them on some; the slow test has the others."""
    for i, (bits, codebook) in enumerate(GRIDS):
        if (i + problem.n) % 3 == 0:
            check(problem, DTYPES[(i + problem.k) % 2], bits, codebook, (64, 32, 128)[problem.n % 3], generator)
    check(problem, DTYPES[problem.k % 3], 4, "uniform", GROUP_SIZES[problem.k % len(GROUP_SIZES)], generator)


@pytest.mark.slow
@pytest.mark.parametrize("problem", LINEAR_PROBLEMS, ids=lambda p: p.id)
def test_all_grids_match_reference(poison, generator, problem):
    for bits, codebook in GRIDS:
        for dtype in DTYPES:
            for group_size in (64, GROUP_SIZES[(bits + problem.k) % len(GROUP_SIZES)]):
                check(problem, dtype, bits, codebook, group_size, generator)


@pytest.mark.parametrize("problem", LINEAR_PROBLEMS[2:9:4], ids=lambda p: p.id)
def test_8_bit_activations_match_reference(poison, generator, problem):
    for i, bits in enumerate((2, 3, 4, 5, 6, 8)):
        check(problem, DTYPES[i % 3], bits, "uniform", GROUP_SIZES[i], generator, activation_bits=8)


@pytest.mark.parametrize("m", [17, 70])
def test_tiles_of_tokens_and_parts_of_k(poison, generator, m):
    """Few rows and a long k are split; more than 16, 32 and 64 tokens take other tiles."""
    check(LinearProblem("split", m, 70, 1400), torch.bfloat16, 3, "uniform", 64, generator)


def test_literal():
    """x * c = [254, -63, 1] over rows [-0.5, 1.5 / 3, 0.5 / 0.25] ...; see the op's own suite."""
    codes = torch.zeros(1, 1, 4, 64, dtype=torch.uint8)
    codes[0, 0, 0, [0, 2, 1]] = torch.tensor([1, 3, 15], dtype=torch.uint8)
    scale = torch.zeros(1, 2, 16).bfloat16()
    scale[0, :, 0] = torch.tensor([0.5, 2.0]).bfloat16()
    zero = torch.zeros(1, 2, 8, dtype=torch.uint8)
    zero[0, :, 0] = torch.tensor([2, 14], dtype=torch.uint8)
    column_scale = torch.tensor([1.0, 3.0, 0.25], dtype=torch.bfloat16)
    x = torch.tensor([[2.0, 4.0, 8.0]])
    for dtype in DTYPES:
        y = dual_shift_linear(x.to(dtype), codes, scale, zero, column_scale, None, 2, 4, 2, "uniform", None)
        assert y.tolist() == [[2.0 * -0.5 + 4.0 * 1.5 + 8.0 * 0.5, 0.0]]
