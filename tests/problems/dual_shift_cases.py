"""Quantized problems that the dual-shift op tests share."""

import functools
import itertools

import torch

from prism_kernels.reference.codebooks import BITS, levels
from prism_kernels.reference.dual_shift_dequantize import dual_shift_dequantize
from prism_kernels.reference.dual_shift_pack import dual_shift_pack
from prism_kernels.reference.dual_shift_quantize import dual_shift_quantize
from prism_kernels.reference.dual_shift_unpack import dual_shift_unpack
from prism_kernels.reference.panels import pack_zero, panels_to_rows, rows_to_panels

#: (bits, codebook)
GRIDS = [(bits, "uniform") for bits in BITS] + [(4, "nf4"), (3, "nf3")]
#: Groups of every kind: word-sized, odd, one column, longer than most rows, and not dividing k.
GROUP_SIZES = (64, 32, 128, 8, 4, 96, 24, 5, 1, 100, 4096)


def make_weight(n, k, generator, dtype=torch.float32):
    """Outliers, a dead row, a dead column, a row with one survivor; and its mask at about half."""
    weight = torch.randn(n, k, generator=generator) * torch.rand(k, generator=generator).add(0.1)
    weight[torch.rand(n, k, generator=generator) < 0.01] *= 20
    mask = torch.rand(n, k, generator=generator) < 0.5
    if n > 3 and k > 3:
        mask[0] = False
        mask[:, 1] = False
        mask[2] = False
        mask[2, k // 2] = True
        weight[3] = 0.0
    return weight.to(dtype), mask


def make_column_scale(k, generator):
    return (torch.rand(k, generator=generator) * 2 + 0.25).bfloat16()


def pack_tensors(codes, scale, zero, column_scale, bits, codebook):
    """(codes, scale, zero, column_scale) of the ops from what `dual_shift_quantize` returns."""
    panels = rows_to_panels(scale)
    packed_zero = pack_zero(zero, bits) if codebook == "uniform" else zero.new_empty(*panels.shape[:2], 0)
    return dual_shift_pack(codes, bits), panels, packed_zero, column_scale


@functools.cache
def make_packed(n, k, bits, group_size, codebook):
    """(codes, scale, zero, column_scale), packed, of a random half-pruned weight; the same one for every caller."""
    generator = torch.Generator().manual_seed(n * k + bits)
    weight, mask = make_weight(n, k, generator)
    column_scale = make_column_scale(k, generator)
    codes, scale, zero = dual_shift_quantize(weight, column_scale, mask, bits, group_size, codebook)
    return pack_tensors(codes, scale, zero, column_scale, bits, codebook)


@functools.cache
def make_exact(n, k, bits, group_size, codebook, rounded_levels=False):
    """The weight of `make_packed` before its column scale, decoded by the reference: float64 [n, k]."""
    codes, scale, zero, column_scale = make_packed(n, k, bits, group_size, codebook)
    if not rounded_levels or codebook == "uniform":
        ones = torch.ones_like(column_scale)
        return dual_shift_dequantize(codes, scale, zero, ones, n, bits, group_size, codebook, torch.float64)
    steps = levels(codebook).bfloat16().double()[dual_shift_unpack(codes, n, k, bits).int()]
    return steps * panels_to_rows(scale, n).double()[:, torch.arange(k) // group_size]


def all_grids(group_sizes=GROUP_SIZES):
    """(bits, codebook, group_size)"""
    return [(bits, codebook, group) for (bits, codebook), group in itertools.product(GRIDS, group_sizes)]
