"""Codes of survivors back to weights, 0 elsewhere: a program decodes 4 panels, a quarter of their columns."""

import torch
import triton
import triton.language as tl

from ._bits import load_quads, quad_columns, skip_quads
from ._dual_shift import codebook_levels
from ._launch import cdiv, launch
from .bitmap_dual_shift_linear import decode_quads

_PANELS, _QUADS, _PARTS = 4, 16, 4


@triton.jit
def _bitmap_dequantize_kernel(
    bitmap, codes, panel_offsets, scale, zero, column_scale, levels, out,
    n, k, num_quads, num_bytes, num_groups, group_size, steps_each,
    BITS: tl.constexpr, UNIFORM: tl.constexpr, PANELS: tl.constexpr, QUADS: tl.constexpr,
):  # fmt: skip
    num_panels = (n + 15) // 16
    panel = tl.program_id(0) * PANELS + tl.arange(0, PANELS)
    row = tl.program_id(0) * PANELS * 16 + tl.arange(0, PANELS * 16)
    first = tl.program_id(1) * steps_each * QUADS
    end = tl.minimum(first + steps_each * QUADS, num_quads)
    start = tl.load(panel_offsets + panel, mask=panel < num_panels, other=0)
    start = skip_quads(bitmap, panel, start, first, num_quads, num_panels, BITS, 4 * QUADS)
    for quad in range(first, end, QUADS):
        code, kept, start = load_quads(
            bitmap, codes, panel, start, quad, end, num_quads, num_panels, num_bytes, BITS, QUADS
        )
        column = quad_columns(quad, QUADS)
        value = decode_quads(code, kept, row, column, scale, zero, levels, n, k, num_groups, group_size, BITS, UNIFORM)
        value = value * tl.load(column_scale + column, mask=column < k, other=0.0).to(tl.float32)[None, :]
        inside = (row < n)[:, None] & (column < k)[None, :]
        at = row.to(tl.int64)[:, None] * k + column[None, :]
        tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


def bitmap_dual_shift_dequantize(
    bitmap: torch.Tensor,
    codes: torch.Tensor,
    panel_offsets: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    n: int,
    bits: int,
    group_size: int,
    codebook: str,
    dtype: torch.dtype,
) -> torch.Tensor:
    """As `ops.bitmap_dual_shift_dequantize`."""
    k, quads, uniform = column_scale.shape[0], bitmap.shape[1], codebook == "uniform"
    out = torch.empty(n, k, dtype=dtype, device=codes.device)
    each = cdiv(cdiv(quads, _QUADS), _PARTS)
    launch(
        _bitmap_dequantize_kernel, (cdiv(n, 16 * _PANELS), cdiv(quads, max(each, 1) * _QUADS)),
        bitmap=bitmap.view(torch.int32), codes=codes, panel_offsets=panel_offsets, scale=scale,
        zero=zero if uniform else codes, column_scale=column_scale,
        levels=scale if uniform else codebook_levels(codebook, codes.device, torch.float32), out=out, n=n, k=k,
        num_quads=quads, num_bytes=codes.shape[0], num_groups=scale.shape[1], group_size=group_size, steps_each=each,
        BITS=bits, UNIFORM=uniform, PANELS=_PANELS, QUADS=_QUADS, num_warps=8,
    )  # fmt: skip
    return out
