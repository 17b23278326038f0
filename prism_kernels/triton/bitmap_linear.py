"""y = x @ weight^T over a bitmap: words become rows of weights where the popcounts say that survivors lie.

A program expands 4 panels (64 rows) x 64 columns a step and multiplies them with up to 64 tokens on tensor cores, where
weights and activations share a 16-bit dtype; otherwise in float32 on CUDA cores. Along k it carries where each panel's
survivors go on; a part of k that begins in the middle counts the bits before it: hence at most 4 parts.
Bound: 1 bit per weight and 2 bytes per survivor read; a load instruction per weight, kept or not, comes next. Not
measured.
"""

import torch
import triton
import triton.language as tl

from ._bits import load_pairs, skip_pairs
from ._finish import add_parts, finish, parts_of_k
from ._launch import cdiv, launch, multiprocessors, next_power_of_2

_PANELS, _PAIRS, _PARTS = 4, 32, 4


@triton.jit
def _bitmap_linear_kernel(
    x, bitmap, values, panel_offsets, bias, out, m, n, k, num_pairs, steps_each,
    PLAIN: tl.constexpr, HAS_BIAS: tl.constexpr, WHOLE: tl.constexpr, PANELS: tl.constexpr, PAIRS: tl.constexpr,
    TOKENS: tl.constexpr,
):  # fmt: skip
    num_panels = (n + 15) // 16
    panel = tl.program_id(0) * PANELS + tl.arange(0, PANELS)
    row = tl.program_id(0) * PANELS * 16 + tl.arange(0, PANELS * 16)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    first = tl.program_id(2) * steps_each * PAIRS
    end = tl.minimum(first + steps_each * PAIRS, num_pairs)
    start = tl.load(panel_offsets + panel, mask=panel < num_panels, other=0)
    start = skip_pairs(bitmap, panel, start, first, num_pairs, num_panels, 4 * PAIRS)
    sums = tl.zeros([PANELS * 16, TOKENS], tl.float32)
    for pair in range(first, end, PAIRS):
        tile, start = load_pairs(bitmap, values, panel, start, pair, end, num_pairs, num_panels, PAIRS)
        column = 2 * pair + tl.arange(0, 2 * PAIRS)
        inside = (column < k)[:, None] & (token < m)[None, :]
        inputs = tl.load(x + token.to(tl.int64)[None, :] * k + column[:, None], mask=inside, other=0.0)
        if PLAIN:
            sums += tl.dot(tile.to(tl.float32), inputs.to(tl.float32), input_precision="ieee")
        else:
            sums += tl.dot(tile, inputs)
    inside = (row < n)[:, None] & (token < m)[None, :]
    at = token.to(tl.int64)[None, :] * n + row[:, None]
    if WHOLE:
        sums = finish(sums, token[None, :], row[:, None], bias, bias, m, n, False, HAS_BIAS)
        tl.store(out + at, sums.to(out.dtype.element_ty), mask=inside)
    else:
        tl.store(out + tl.program_id(2).to(tl.int64) * m * n + at, sums, mask=inside)


def bitmap_linear(
    x: torch.Tensor,
    bitmap: torch.Tensor,
    values: torch.Tensor,
    panel_offsets: torch.Tensor,
    bias: torch.Tensor | None,
    n: int,
) -> torch.Tensor:
    """As `ops.bitmap_linear` on x [m, k]."""
    (m, k), pairs = x.shape, bitmap.shape[1]
    out = torch.empty(m, n, dtype=x.dtype, device=x.device)
    tokens = min(max(next_power_of_2(m), 16), 64)
    grid = cdiv(n, 16 * _PANELS), cdiv(m, tokens)
    parts, each = parts_of_k(grid[0] * grid[1], cdiv(pairs, _PAIRS), _PARTS, multiprocessors(x.device))
    whole = parts <= 1
    sums = out if whole else torch.empty(parts, m, n, dtype=torch.float32, device=x.device)
    launch(
        _bitmap_linear_kernel, (*grid, max(parts, 1)), x=x, bitmap=bitmap.view(torch.int32), values=values,
        panel_offsets=panel_offsets, bias=x if bias is None else bias, out=sums, m=m, n=n, k=k, num_pairs=pairs,
        steps_each=each, PLAIN=x.dtype == torch.float32 or values.dtype != x.dtype, HAS_BIAS=bias is not None,
        WHOLE=whole, PANELS=_PANELS, PAIRS=_PAIRS, TOKENS=tokens, contract=True,
    )  # fmt: skip
    if not whole:
        add_parts(sums, None, bias, out)
    return out
