"""The column sweep of SparseGPT over one block: all rows in parallel, columns in order, bit for bit the reference.

A program keeps its rows of the block in registers as tiles [ROWS, COLUMNS] of values, errors, mask and codes, and reads
a row of the Cholesky factor per step (64 KiB for 128 columns: it stays in the first cache). Triton cannot index
registers: column j is a masked sum of the tile, which costs as much as the update of all columns to its right that
follows it.
"""

import torch
import triton
import triton.language as tl

from ._grid import find_grid, quotient, round_to_grid
from ._launch import cdiv, launch, next_power_of_2

_TILE = 1024


@triton.jit
def _column(tile, column, j):
    """Column j of a tile [R, C]."""
    return tl.sum(tl.where(column[None, :] == j, tile, 0.0), axis=1)


@triton.jit
def _choose(values, diagonal, kept, column, j, b, n_keep, m):
    """`kept` with the n_keep best of the next m columns by value^2 / diagonal^2; of equals the lower is pruned
    first."""
    width = tl.minimum(m, b - j)
    keep = (n_keep * width + m - 1) // m
    score = quotient(values * values, (diagonal * diagonal)[None, :])
    score = tl.where(score == score, score, float("-inf"))
    better = tl.zeros(values.shape, tl.int32)
    for other in range(j, j + width):
        rival = _column(score, column, other)[:, None]
        wins = (rival > score) | ((rival == score) & (other > column)[None, :])
        better += wins.to(tl.int32)
    ahead = (column >= j) & (column < j + width)
    return tl.where(ahead[None, :], (better < keep).to(tl.int32), kept)


@triton.jit
def _sweep_kernel(
    weight, factor, mask, column_scale, scale, zero,
    out, error_out, mask_out, codes_out, scale_out, zero_out,
    n, b, n_keep, m, num_groups, group_size,
    BITS: tl.constexpr, FIND_MASK: tl.constexpr, HAS_MASK: tl.constexpr, FIND_GRIDS: tl.constexpr,
    HAS_COLUMN_SCALE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = (row < n)[:, None] & (column < b)[None, :]
    at = row.to(tl.int64)[:, None] * b + column[None, :]
    values = tl.load(weight + at, mask=inside, other=0.0)
    kept = tl.full([ROWS, COLUMNS], 1, tl.int32)
    if HAS_MASK:
        kept = tl.load(mask + at, mask=inside, other=0).to(tl.int32)
    diagonal = tl.load(factor + column * (b + 1), mask=column < b, other=1.0)
    stretch = tl.full([COLUMNS], 1.0, tl.float32)
    if HAS_COLUMN_SCALE:
        stretch = tl.load(column_scale + column, mask=column < b, other=1.0).to(tl.float32)
    error = tl.zeros([ROWS, COLUMNS], tl.float32)
    codes = tl.zeros([ROWS, COLUMNS], tl.float32)
    unit = tl.full([ROWS], 1.0, tl.float32)
    shift = tl.zeros([ROWS], tl.float32)
    for j in range(b):
        if FIND_MASK:  # noqa: SIM102 - a constant: where it is False, Triton does not compile what follows
            if j % m == 0:
                kept = _choose(values, diagonal, kept, column, j, b, n_keep, m)
        value = _column(values, column, j)
        stays = tl.max(tl.where(column[None, :] == j, kept, 0), axis=1) != 0
        result = value
        if BITS > 0:
            if j % group_size == 0:
                grid = row.to(tl.int64) * num_groups + j // group_size
                if FIND_GRIDS:
                    group = ((column >= j) & (column < j + group_size))[None, :] & (kept != 0) & inside
                    scaled = tl.where(group, quotient(values, stretch[None, :]), 0.0)
                    low = tl.minimum(tl.min(scaled, axis=1), 0.0)
                    unit, shift = find_grid(low, tl.maximum(tl.max(scaled, axis=1), 0.0), BITS)
                else:
                    unit = tl.load(scale + grid, mask=row < n, other=1.0).to(tl.float32)
                    shift = tl.load(zero + grid, mask=row < n, other=0).to(tl.float32)
                tl.store(scale_out + grid, unit.to(tl.bfloat16), mask=row < n)
                tl.store(zero_out + grid, shift.to(tl.uint8), mask=row < n)
            narrow = tl.full([ROWS], 1.0, tl.float32)
            if HAS_COLUMN_SCALE:
                narrow = narrow * tl.load(column_scale + j).to(tl.float32)
            code = round_to_grid(quotient(value, narrow), unit, shift, BITS)
            codes = tl.where(column[None, :] == j, tl.where(stays, code, shift)[:, None], codes)
            result = (code - shift) * unit * narrow
        result = tl.where(stays, result, 0.0)
        step = quotient(value - result, tl.load(factor + j * (b + 1)))
        error = tl.where(column[None, :] == j, step[:, None], error)
        right = column > j
        spread = tl.load(factor + j * b + column, mask=right & (column < b), other=0.0)
        moved = values - step[:, None] * spread[None, :]
        values = tl.where(column[None, :] == j, result[:, None], tl.where(right[None, :], moved, values))
    tl.store(out + at, values, mask=inside)
    tl.store(error_out + at, error, mask=inside)
    tl.store(mask_out + at, kept.to(tl.uint8), mask=inside)
    if BITS > 0:
        tl.store(codes_out + at, codes.to(tl.uint8), mask=inside)


def obs_sweep(
    weight: torch.Tensor,
    factor: torch.Tensor,
    mask: torch.Tensor | None,
    n_keep: int,
    m: int,
    column_scale: torch.Tensor | None,
    scale: torch.Tensor | None,
    zero: torch.Tensor | None,
    bits: int,
    group_size: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `ops.obs_sweep`."""
    (n, b), device = weight.shape, weight.device
    groups = cdiv(b, group_size) if bits else 0
    out, error = torch.empty_like(weight), torch.empty_like(weight)
    kept = torch.empty(n, b, dtype=torch.bool, device=device)
    codes = torch.empty(n, b if bits else 0, dtype=torch.uint8, device=device)
    scale_out = torch.empty(n, groups, dtype=torch.bfloat16, device=device)
    zero_out = torch.empty(n, groups, dtype=torch.uint8, device=device)
    columns = max(next_power_of_2(b), 16)
    rows = min(max(_TILE // columns, 1), 16)
    launch(
        _sweep_kernel, (cdiv(n, rows) if b else 0,), weight=weight, factor=factor,
        mask=kept.view(torch.uint8) if mask is None else mask.view(torch.uint8),
        column_scale=weight if column_scale is None else column_scale, scale=scale_out if scale is None else scale,
        zero=zero_out if zero is None else zero, out=out, error_out=error, mask_out=kept.view(torch.uint8),
        codes_out=codes, scale_out=scale_out, zero_out=zero_out, n=n, b=b, n_keep=n_keep, m=max(m, 1),
        num_groups=groups, group_size=max(group_size, 1), BITS=bits, FIND_MASK=mask is None and m > 0,
        HAS_MASK=mask is not None, FIND_GRIDS=scale is None, HAS_COLUMN_SCALE=column_scale is not None,
        ROWS=rows, COLUMNS=columns, num_warps=4 if columns <= 1024 else 8, num_stages=1,
    )  # fmt: skip
    return out, error, kept, codes, scale_out, zero_out
