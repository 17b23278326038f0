"""Packed codes back to weights: (q - z) * s * c, or level[q] * s * c, in float32 and rounded once.

A program decodes 32 rows x 128 columns. Bound: bits / 8 + 4 / g bytes read and 2 bytes written per weight (bfloat16).
"""

import torch
import triton
import triton.language as tl

from ._dual_shift import as_words, codebook_levels, load_codes, load_scale, load_zero
from ._launch import cdiv, launch

_ROWS, _BLOCKS = 32, 4


@triton.jit
def _dequantize_kernel(
    words, scale, zero, column_scale, levels, out, n, k, num_blocks, num_groups, group_size,
    BITS: tl.constexpr, UNIFORM: tl.constexpr, ROWS: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first_block = tl.program_id(1) * BLOCKS
    column = first_block * 32 + tl.arange(0, 32 * BLOCKS)
    codes = load_codes(words, row, (n + 15) // 16, first_block, num_blocks, BITS, BLOCKS)
    present = (row < n)[:, None] & (column < k)[None, :]
    group = (column // group_size)[None, :]
    if UNIFORM:
        steps = (codes - load_zero(zero, row[:, None], group, present, num_groups, BITS)).to(tl.float32)
    else:
        steps = tl.load(levels + codes)
    factor = tl.load(column_scale + column, mask=column < k, other=0.0).to(tl.float32)
    value = steps * load_scale(scale, row[:, None], group, present, num_groups) * factor[None, :]
    at = row.to(tl.int64)[:, None] * k + column[None, :]
    tl.store(out + at, value.to(out.dtype.element_ty), mask=present)


def dual_shift_dequantize(
    codes: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    n: int,
    bits: int,
    group_size: int,
    codebook: str,
    dtype: torch.dtype,
) -> torch.Tensor:
    """As `ops.dual_shift_dequantize`."""
    k = column_scale.shape[0]
    out = torch.empty(n, k, dtype=dtype, device=codes.device)
    uniform = codebook == "uniform"
    launch(
        _dequantize_kernel, (cdiv(n, _ROWS), cdiv(k, 32 * _BLOCKS)),
        words=as_words(codes), scale=scale, zero=zero if uniform else codes, column_scale=column_scale,
        levels=scale if uniform else codebook_levels(codebook, codes.device, torch.float32), out=out, n=n, k=k,
        num_blocks=codes.shape[1], num_groups=scale.shape[1], group_size=group_size,
        BITS=bits, UNIFORM=uniform, ROWS=_ROWS, BLOCKS=_BLOCKS,
    )  # fmt: skip
    return out
