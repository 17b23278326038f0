"""N:M masks: an entry stays where fewer than `keep` of its group beat it. Entries of a group are read again from the
cache, once for each of them; memory sees 4 bytes read and 1 written per entry."""

import torch
import triton
import triton.language as tl

from ._launch import cdiv, launch, next_power_of_2


@triton.jit
def _nm_mask_kernel(scores, mask, n, k, n_keep, m, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (row < n)[:, None] & (column < k)[None, :]
    line = row.to(tl.int64)[:, None] * k
    own = tl.load(scores + line + column[None, :], mask=inside, other=0.0)
    own = tl.where(own == own, own, float("-inf"))
    first = column // m * m
    width = tl.minimum(k - first, m)
    keep = (n_keep * width + m - 1) // m
    better = tl.zeros([ROWS, COLUMNS], tl.int32)
    for i in range(m):
        rival = tl.load(scores + line + (first + i)[None, :], mask=inside & (i < width)[None, :], other=float("-inf"))
        rival = tl.where(rival == rival, rival, float("-inf"))
        later = ((first + i > column) & (i < width))[None, :]
        better += ((rival > own) | ((rival == own) & later)).to(tl.int32)
    tl.store(mask + line + column[None, :], (better < keep[None, :]).to(tl.uint8), mask=inside)


def nm_mask(scores: torch.Tensor, n_keep: int, m: int) -> torch.Tensor:
    """As `ops.nm_mask` on float32 scores."""
    n, k = scores.shape
    mask = torch.empty(n, k, dtype=torch.bool, device=scores.device)
    columns = min(max(next_power_of_2(k), 16), 512)
    rows = 1024 // columns if columns > 64 else 16
    launch(
        _nm_mask_kernel, (cdiv(n, rows), cdiv(k, columns)), scores=scores, mask=mask.view(torch.uint8), n=n, k=k,
        n_keep=n_keep, m=m, ROWS=rows, COLUMNS=columns,
    )  # fmt: skip
    return mask
