"""Masks of an exact number of the largest scores, of every row or of the matrix: radix selection, 8 bits a pass.

Scores become integers of the same order. Four passes count the values of 8 bits among those that share the bits found
so far, in chunks whose counts are then added: integers, so the result is exact. Of the scores equal to the last one
kept, those of the highest index stay: the chunks to the right are counted first.
Bound: the scores are read six times; they stay in the second cache up to its size.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from ._launch import cdiv, launch

_TILE, _TILES = 4096, 4


@triton.jit
def _load_keys(scores, segment, begin, size, TILE: tl.constexpr):
    """(uint32 in the order of the scores, NaN as -inf, -0 as 0; where a score is) of one tile of a segment."""
    index = begin + tl.arange(0, TILE)
    inside = index < size
    value = tl.load(scores + segment.to(tl.int64) * size + index, mask=inside, other=0.0)
    value = tl.where(value == value, value, float("-inf")) + 0.0
    bits = value.to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) | -2147483648)).to(tl.uint32, bitcast=True), inside


@triton.jit
def _count_kernel(
    scores, prefix, counts, size, chunks, SHIFT: tl.constexpr, TILE: tl.constexpr, TILES: tl.constexpr
):  # fmt: skip
    """How often each value of the 8 bits from SHIFT on occurs in a chunk, int32 [segments, chunks, 256]."""
    chunk, segment = tl.program_id(0), tl.program_id(1)
    found = tl.load(prefix + segment).to(tl.uint32, bitcast=True)
    total = tl.zeros([512], tl.int32)
    for i in range(TILES):
        key, inside = _load_keys(scores, segment, (chunk * TILES + i).to(tl.int64) * TILE, size, TILE)
        matches = inside & ((key >> SHIFT >> 8) == (found >> SHIFT >> 8)) if SHIFT < 24 else inside
        digit = ((key >> SHIFT) & 255).to(tl.int32)
        total += tl.histogram(tl.where(matches, digit, 256), 512)
    digit = tl.arange(0, 512)
    tl.store(counts + (segment.to(tl.int64) * chunks + chunk) * 256 + digit, total, mask=digit < 256)


@triton.jit
def _select_kernel(counts, prefix, remaining, chunks, SHIFT: tl.constexpr, CHUNKS: tl.constexpr):
    """The 8 bits of the last score that is kept, and how many are still to be kept of those that share them."""
    segment = tl.program_id(0)
    digit = tl.arange(0, 256)
    total = tl.zeros([256], tl.int64)
    for begin in range(0, chunks, CHUNKS):
        chunk = begin + tl.arange(0, CHUNKS)
        at = (segment.to(tl.int64) * chunks + chunk)[:, None] * 256 + digit[None, :]
        total += tl.sum(tl.load(counts + at, mask=(chunk < chunks)[:, None], other=0).to(tl.int64), axis=0)
    above = tl.sum(total, axis=0) - tl.cumsum(total, axis=0)
    wanted = tl.load(remaining + segment)
    chosen = (above < wanted) & (wanted <= above + total)
    # Nothing is to be kept: the largest value of all bits, which no score has.
    bits = tl.where(wanted > 0, tl.sum(tl.where(chosen, digit, 0), axis=0), 255)
    tl.store(remaining + segment, wanted - tl.sum(tl.where(chosen, above, 0), axis=0))
    tl.store(prefix + segment, tl.load(prefix + segment) | (bits << SHIFT))


@triton.jit
def _count_ties_kernel(scores, prefix, ties, size, chunks, TILE: tl.constexpr, TILES: tl.constexpr):
    chunk, segment = tl.program_id(0), tl.program_id(1)
    last = tl.load(prefix + segment).to(tl.uint32, bitcast=True)
    total = tl.zeros([TILE], tl.int32)
    for i in range(TILES):
        key, inside = _load_keys(scores, segment, (chunk * TILES + i).to(tl.int64) * TILE, size, TILE)
        total += (inside & (key == last)).to(tl.int32)
    tl.store(ties + segment.to(tl.int64) * chunks + chunk, tl.sum(total, axis=0))


@triton.jit
def _write_kernel(
    scores, prefix, remaining, ties, mask, size, chunks, TILE: tl.constexpr, TILES: tl.constexpr
):  # fmt: skip
    """True where a score is above the last one kept, or equal to it and among the `remaining` highest indices."""
    chunk, segment = tl.program_id(0), tl.program_id(1)
    last = tl.load(prefix + segment).to(tl.uint32, bitcast=True)
    later = tl.zeros([1024], tl.int64)
    for begin in range(chunk + 1, chunks, 1024):
        other = begin + tl.arange(0, 1024)
        at = segment.to(tl.int64) * chunks + other
        later += tl.load(ties + at, mask=other < chunks, other=0).to(tl.int64)
    left = tl.load(remaining + segment) - tl.sum(later, axis=0)
    for i in range(TILES):
        here_from = (chunk * TILES + TILES - 1 - i).to(tl.int64) * TILE
        key, inside = _load_keys(scores, segment, here_from, size, TILE)
        equal = (inside & (key == last)).to(tl.int64)
        here = tl.sum(equal, axis=0)
        from_right = here - tl.cumsum(equal, axis=0) + equal
        kept = (key > last) | ((equal > 0) & (from_right <= left))
        index = here_from + tl.arange(0, TILE)
        tl.store(mask + segment.to(tl.int64) * size + index, kept.to(tl.uint8), mask=inside)
        left -= here


def topk_mask(scores: torch.Tensor, keep: int, scope: str) -> torch.Tensor:
    """As `ops.topk_mask` on float32 scores."""
    mask = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
    if not scores.numel():
        return mask
    segments, size = tuple(scores.shape) if scope == "row" else (1, scores.numel())
    tiles = min(_TILES, cdiv(size, _TILE))
    chunks = cdiv(size, _TILE * tiles)
    prefix = torch.zeros(segments, dtype=torch.int32, device=scores.device)
    remaining = torch.full((segments,), keep, dtype=torch.int64, device=scores.device)
    counts = torch.empty(segments, chunks, 256, dtype=torch.int32, device=scores.device)
    ties = torch.empty(segments, chunks, dtype=torch.int32, device=scores.device)
    grid = (chunks, segments)
    found: dict[str, Any] = {"scores": scores, "prefix": prefix, "size": size, "chunks": chunks}
    shape: dict[str, Any] = {"TILE": _TILE, "TILES": tiles, "num_warps": 8}
    for shift in (24, 16, 8, 0):
        launch(_count_kernel, grid, **found, counts=counts, SHIFT=shift, **shape)
        launch(
            _select_kernel, (segments,), counts=counts, prefix=prefix, remaining=remaining, chunks=chunks,
            SHIFT=shift, CHUNKS=16,
        )  # fmt: skip
    launch(_count_ties_kernel, grid, **found, ties=ties, **shape)
    launch(_write_kernel, grid, **found, remaining=remaining, ties=ties, mask=mask.view(torch.uint8), **shape)
    return mask
