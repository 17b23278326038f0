"""A bitmap weight, dense again: a program expands 4 panels, a quarter of their columns, 64 columns a step."""

import torch
import triton
import triton.language as tl

from ._bits import load_pairs, skip_pairs
from ._launch import cdiv, launch

_PANELS, _PAIRS, _PARTS = 4, 32, 4


@triton.jit
def _bitmap_unpack_kernel(
    bitmap, values, panel_offsets, out, n, k, num_pairs, steps_each, PANELS: tl.constexpr, PAIRS: tl.constexpr
):  # fmt: skip
    num_panels = (n + 15) // 16
    panel = tl.program_id(0) * PANELS + tl.arange(0, PANELS)
    row = tl.program_id(0) * PANELS * 16 + tl.arange(0, PANELS * 16)
    first = tl.program_id(1) * steps_each * PAIRS
    end = tl.minimum(first + steps_each * PAIRS, num_pairs)
    start = tl.load(panel_offsets + panel, mask=panel < num_panels, other=0)
    start = skip_pairs(bitmap, panel, start, first, num_pairs, num_panels, 4 * PAIRS)
    for pair in range(first, end, PAIRS):
        tile, start = load_pairs(bitmap, values, panel, start, pair, end, num_pairs, num_panels, PAIRS)
        column = 2 * pair + tl.arange(0, 2 * PAIRS)
        inside = (row < n)[:, None] & (column < k)[None, :]
        tl.store(out + row.to(tl.int64)[:, None] * k + column[None, :], tile, mask=inside)


def bitmap_unpack(
    bitmap: torch.Tensor, values: torch.Tensor, panel_offsets: torch.Tensor, n: int, k: int
) -> torch.Tensor:
    """As `ops.bitmap_unpack`."""
    out = torch.empty(n, k, dtype=values.dtype, device=values.device)
    pairs = bitmap.shape[1]
    each = cdiv(cdiv(pairs, _PAIRS), _PARTS)
    launch(
        _bitmap_unpack_kernel, (cdiv(n, 16 * _PANELS), cdiv(pairs, max(each, 1) * _PAIRS)),
        bitmap=bitmap.view(torch.int32), values=values, panel_offsets=panel_offsets, out=out, n=n, k=k, num_pairs=pairs,
        steps_each=each, PANELS=_PANELS, PAIRS=_PAIRS,
    )  # fmt: skip
    return out
