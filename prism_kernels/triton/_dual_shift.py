"""Codes, scales and zero points of a panel-packed weight as Triton tiles (layout: `reference/panels.py`).

In a block of 32 columns a plane of w bits is w vectors of 16 words, a 32-bit word per row. A word holds 32 / w columns
of its row: column c at bit 8 * swap(c % 4) + w * (c // 4), where swap exchanges 1 and 2 (QUAD_ORDER). Words of 16 rows
lie side by side and blocks follow one another, so that a tile of words is read in 16-byte loads; a thread then unpacks
the words that it read, without an exchange between threads.
"""

import functools

import torch
import triton
import triton.language as tl

from ..reference.codebooks import LEVELS


@triton.jit
def load_words(
    words, row, in_panels, block, in_blocks, num_blocks, BITS: tl.constexpr, FIRST: tl.constexpr, WIDTH: tl.constexpr
):
    """Plane of WIDTH bits that begins at vector FIRST: rows [R], blocks [B] -> int32 [R, B * WIDTH]."""
    BLOCKS: tl.constexpr = block.shape[0]
    vector = tl.arange(0, WIDTH)
    # [B, WIDTH] flattened: word of block b, vector v
    word = tl.reshape((block[:, None] * BITS + FIRST + vector[None, :]) * 16, [BLOCKS * WIDTH])
    present = tl.reshape(tl.broadcast_to(in_blocks[:, None], (BLOCKS, WIDTH)), [BLOCKS * WIDTH])
    panel = (row // 16).to(tl.int64) * (num_blocks * BITS * 16)
    where = panel[:, None] + word[None, :] + (row % 16)[:, None]
    return tl.load(words + where, mask=in_panels[:, None] & present[None, :], other=0)


@triton.jit
def unpack_words(word, WIDTH: tl.constexpr):
    """int32 [R, W] -> codes of one plane, int32 [R, W * 32 / WIDTH], in the order of columns."""
    EACH: tl.constexpr = 32 // WIDTH
    column = tl.arange(0, EACH)
    shift = 16 * (column & 1) + 8 * ((column >> 1) & 1) + WIDTH * (column // 4)
    codes = (word[:, :, None] >> shift[None, None, :]) & ((1 << WIDTH) - 1)
    return tl.reshape(codes, [word.shape[0], word.shape[1] * EACH])


@triton.jit
def load_codes(words, row, num_panels, first_block, num_blocks, BITS: tl.constexpr, BLOCKS: tl.constexpr):
    """Codes of `row` [R] and of the columns of BLOCKS blocks from first_block: int32 [R, 32 * BLOCKS]; 0 outside."""
    block = first_block + tl.arange(0, BLOCKS)
    in_panels = row // 16 < num_panels
    in_blocks = block < num_blocks
    LOW: tl.constexpr = 2 if BITS < 4 else 4 if BITS < 8 else 8
    word = load_words(words, row, in_panels, block, in_blocks, num_blocks, BITS, 0, LOW)
    codes = unpack_words(word, LOW)
    if BITS > LOW:
        HIGH: tl.constexpr = BITS - LOW
        word = load_words(words, row, in_panels, block, in_blocks, num_blocks, BITS, LOW, HIGH)
        codes = codes | (unpack_words(word, HIGH) << LOW)
    return codes


@triton.jit
def load_zero(zero, row, group, present, num_groups, BITS: tl.constexpr):
    """Zero points of rows and groups of any one shape, int32: packed as in `panels.pack_zero`."""
    at = (row // 16).to(tl.int64) * num_groups + group
    if BITS <= 4:
        both = tl.load(zero + at * 8 + row % 8, mask=present, other=0).to(tl.int32)
        return (both >> (4 * ((row // 8) % 2))) & 15
    else:
        return tl.load(zero + at * 16 + row % 16, mask=present, other=0).to(tl.int32)


@triton.jit
def load_scale(scale, row, group, present, num_groups):
    """Group scales of rows and groups of any one shape, float32; 0 where not present."""
    at = ((row // 16).to(tl.int64) * num_groups + group) * 16 + row % 16
    return tl.load(scale + at, mask=present, other=0.0).to(tl.float32)


@triton.jit
def exact_float(value):
    """Integers in [0, 2^23) as float32: set bits below the exponent of 2^23. Conversion instructions run at a fraction
    of the rate of these two."""
    return (value | 0x4B000000).to(tl.float32, bitcast=True) - 8388608.0


@functools.cache
def codebook_levels(codebook: str, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Levels of a non-uniform codebook on `device`, copied there once."""
    return torch.tensor(LEVELS[codebook], dtype=torch.float32).to(device, dtype)


def as_words(codes: torch.Tensor) -> torch.Tensor:
    """Packed codes u8 [P, B, bits, 64] -> int32 [P, B, bits, 16], the same memory."""
    return codes.view(torch.int32)


@functools.cache
def codebook_boundaries(codebook: str, device: torch.device) -> torch.Tensor:
    """float32 values half way between neighbouring levels, on `device`; one for "uniform", which has none."""
    table = torch.tensor(LEVELS[codebook] or (0.0, 0.0), dtype=torch.float32)
    return ((table[:-1] + table[1:]) / 2).to(device)
