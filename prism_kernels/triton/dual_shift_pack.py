"""Codes to the bit planes of panels (`reference/panels.py`).

A program packs 32 rows x 128 columns: of each plane, a word of 32 bits gathers the codes of its row, column c of the
word at bit 8 * swap(c % 4) + w * (c // 4), as `_dual_shift.unpack_words` takes them apart. Bound: a byte read and
bits / 8 written per code.
"""

import torch
import triton
import triton.language as tl

from ._dual_shift import as_words
from ._launch import cdiv, launch

_ROWS, _BLOCKS = 32, 4


@triton.jit
def _store_plane(
    words, codes, row, num_panels, first_block, num_blocks, BITS: tl.constexpr, FIRST: tl.constexpr,
    WIDTH: tl.constexpr, BLOCKS: tl.constexpr,
):  # fmt: skip
    """The plane of WIDTH bits that begins at bit and vector FIRST, of codes int32 [R, 32 * BLOCKS]."""
    EACH: tl.constexpr = 32 // WIDTH
    column = tl.arange(0, EACH)
    shift = 16 * (column & 1) + 8 * ((column >> 1) & 1) + WIDTH * (column // 4)
    fields = tl.reshape((codes >> FIRST) & ((1 << WIDTH) - 1), [codes.shape[0], BLOCKS * WIDTH, EACH])
    word = tl.sum(fields << shift[None, None, :], axis=2)
    vector = tl.arange(0, BLOCKS * WIDTH)
    block = first_block + vector // WIDTH
    at = (block * BITS + FIRST + vector % WIDTH) * 16
    panel = (row // 16).to(tl.int64) * (num_blocks * BITS * 16)
    inside = (row // 16 < num_panels)[:, None] & (block < num_blocks)[None, :]
    tl.store(words + panel[:, None] + at[None, :] + (row % 16)[:, None], word, mask=inside)


@triton.jit
def _dual_shift_pack_kernel(
    codes, words, n, k, num_blocks, BITS: tl.constexpr, ROWS: tl.constexpr, BLOCKS: tl.constexpr
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first_block = tl.program_id(1) * BLOCKS
    column = first_block * 32 + tl.arange(0, 32 * BLOCKS)
    inside = (row < n)[:, None] & (column < k)[None, :]
    code = tl.load(codes + row.to(tl.int64)[:, None] * k + column[None, :], mask=inside, other=0).to(tl.int32)
    LOW: tl.constexpr = 2 if BITS < 4 else 4 if BITS < 8 else 8
    num_panels = (n + 15) // 16
    _store_plane(words, code, row, num_panels, first_block, num_blocks, BITS, 0, LOW, BLOCKS)
    if BITS > LOW:
        _store_plane(words, code, row, num_panels, first_block, num_blocks, BITS, LOW, BITS - LOW, BLOCKS)


def dual_shift_pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """As `ops.dual_shift_pack`."""
    n, k = codes.shape
    packed = torch.empty(cdiv(n, 16), cdiv(k, 32), bits, 64, dtype=torch.uint8, device=codes.device)
    launch(
        _dual_shift_pack_kernel, (cdiv(n, _ROWS), cdiv(k, 32 * _BLOCKS)), codes=codes, words=as_words(packed), n=n, k=k,
        num_blocks=packed.shape[1], BITS=bits, ROWS=_ROWS, BLOCKS=_BLOCKS,
    )  # fmt: skip
    return packed
