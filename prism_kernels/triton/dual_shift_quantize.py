"""Codes, group scales and zero points of weight / column_scale, bit for bit the reference.

A program takes one group of some rows: its extremes, then its codes. Bound: the weight is read once from memory (again
from the cache), a byte per code is written.
"""

import torch
import triton
import triton.language as tl

from ..reference.codebooks import LEVELS
from ._dual_shift import codebook_boundaries
from ._grid import find_grid, quotient, round_to_grid, sound_scale
from ._launch import cdiv, launch, next_power_of_2

_TILE = 4096


@triton.jit
def _load(weight, column_scale, mask, row, column, inside, k, HAS_MASK: tl.constexpr):
    """(weight / column_scale, 0 where not kept; kept) of a tile."""
    at = row.to(tl.int64)[:, None] * k + column[None, :]
    kept = inside
    if HAS_MASK:
        kept = kept & (tl.load(mask + at, mask=inside, other=0) != 0)
    value = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(column_scale + column, mask=column < k, other=1.0).to(tl.float32)
    return tl.where(kept, quotient(value, factor[None, :]), 0.0), kept


@triton.jit
def _quantize_kernel(
    weight, column_scale, mask, boundaries, codes, scale, zero, n, k, num_groups, width,
    BITS: tl.constexpr, UNIFORM: tl.constexpr, LEVEL_OF_ZERO: tl.constexpr, HAS_MASK: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    group = tl.program_id(1)
    first = group * width
    end = tl.minimum(first + width, k)
    low = tl.zeros([ROWS], tl.float32)
    high = tl.zeros([ROWS], tl.float32)
    for begin in range(first, end, COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        inside = (row < n)[:, None] & (column < end)[None, :]
        value, _ = _load(weight, column_scale, mask, row, column, inside, k, HAS_MASK)
        low = tl.minimum(low, tl.min(value, axis=1))
        high = tl.maximum(high, tl.max(value, axis=1))
    at = row.to(tl.int64) * num_groups + group
    if UNIFORM:
        unit, shift = find_grid(low, high, BITS)
        tl.store(zero + at, shift.to(tl.uint8), mask=row < n)
    else:
        unit, shift = sound_scale(tl.maximum(-low, high)), low
    tl.store(scale + at, unit.to(tl.bfloat16), mask=row < n)
    for begin in range(first, end, COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        inside = (row < n)[:, None] & (column < end)[None, :]
        value, kept = _load(weight, column_scale, mask, row, column, inside, k, HAS_MASK)
        if UNIFORM:
            code = tl.where(kept, round_to_grid(value, unit[:, None], shift[:, None], BITS), shift[:, None])
        else:
            ratio = quotient(value, unit[:, None])
            code = tl.zeros([ROWS, COLUMNS], tl.float32)
            for i in tl.static_range((1 << BITS) - 1):
                code += tl.where(ratio > tl.load(boundaries + i), 1.0, 0.0)
            code = tl.where(kept, code, LEVEL_OF_ZERO * 1.0)
        tl.store(codes + row.to(tl.int64)[:, None] * k + column[None, :], code.to(tl.uint8), mask=inside)


def dual_shift_quantize(
    weight: torch.Tensor,
    column_scale: torch.Tensor,
    mask: torch.Tensor | None,
    bits: int,
    group_size: int,
    codebook: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `ops.dual_shift_quantize`."""
    n, k = weight.shape
    width = max(min(group_size, k), 1)
    num_groups, uniform, device = cdiv(k, width), codebook == "uniform", weight.device
    codes = torch.empty(n, k, dtype=torch.uint8, device=device)
    scale = torch.empty(n, num_groups, dtype=torch.bfloat16, device=device)
    zero = torch.empty(n, num_groups if uniform else 0, dtype=torch.uint8, device=device)
    columns = min(next_power_of_2(width), 512)
    rows = min(_TILE // columns, 64, next_power_of_2(n))
    launch(
        _quantize_kernel, (cdiv(n, rows), num_groups), weight=weight, column_scale=column_scale,
        mask=codes if mask is None else mask.view(torch.uint8), boundaries=codebook_boundaries(codebook, device),
        codes=codes, scale=scale, zero=zero if uniform else codes, n=n, k=k, num_groups=num_groups, width=width,
        BITS=bits, UNIFORM=uniform, LEVEL_OF_ZERO=0 if uniform else LEVELS[codebook].index(0.0),
        HAS_MASK=mask is not None, ROWS=rows, COLUMNS=columns,
    )  # fmt: skip
    return codes, scale, zero
