"""Sums of 16x16 tiles: a program reads one panel of 16 rows, 128 columns of it; every score is read once."""

import torch
import triton
import triton.language as tl

from ._launch import cdiv, launch

_TILES = 8


@triton.jit
def _block_scores_kernel(scores, mask, out, n, k, num_tiles, HAS_MASK: tl.constexpr, TILES: tl.constexpr):
    row = tl.program_id(0) * 16 + tl.arange(0, 16)
    tile = tl.program_id(1) * TILES + tl.arange(0, TILES)
    column = tl.program_id(1) * TILES * 16 + tl.arange(0, TILES * 16)
    kept = (row < n)[:, None] & (column < k)[None, :]
    at = row.to(tl.int64)[:, None] * k + column[None, :]
    value = tl.load(scores + at, mask=kept, other=0.0)
    if HAS_MASK:
        kept = kept & (tl.load(mask + at, mask=kept, other=0) != 0)
    columns = tl.sum(tl.where(kept, value, 0.0), axis=0)
    sums = tl.sum(tl.reshape(columns, [TILES, 16]), axis=1)
    tl.store(out + tl.program_id(0).to(tl.int64) * num_tiles + tile, sums, mask=tile < num_tiles)


def block_scores(scores: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """As `ops.block_scores` on float32 scores."""
    n, k = scores.shape
    out = torch.empty(cdiv(n, 16), cdiv(k, 16), dtype=torch.float32, device=scores.device)
    launch(
        _block_scores_kernel, (out.shape[0], cdiv(out.shape[1], _TILES)), scores=scores,
        mask=scores if mask is None else mask.view(torch.uint8), out=out, n=n, k=k, num_tiles=out.shape[1],
        HAS_MASK=mask is not None, TILES=_TILES,
    )  # fmt: skip
    return out
