"""Bit masks as Triton tiles: counts and the places of survivors in the stream that follows the bits."""

import triton
import triton.language as tl


@triton.jit
def popcount(word):
    """Set bits of each int32. Triton has the instruction only in a library that its interpreter lacks."""
    word = word - ((word >> 1) & 0x55555555)
    word = (word & 0x33333333) + ((word >> 2) & 0x33333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F
    word = word + (word >> 8)
    return (word + (word >> 16)) & 63


@triton.jit
def bits_of(word):
    """int32 [A, B] -> int32 [A, B, 32] of 0 and 1."""
    return (word[:, :, None] >> tl.arange(0, 32)[None, None, :]) & 1


@triton.jit
def expand_pairs(word, values, start):
    """Bits of pairs of columns, int32 [P, PAIRS], survivors from `start` int64 [P] on ->
    (weights [16 * P, 2 * PAIRS] in the dtype of values, the start of what follows)."""
    PANELS: tl.constexpr = word.shape[0]
    PAIRS: tl.constexpr = word.shape[1]
    counts = popcount(word)
    first = start[:, None] + tl.cumsum(counts, axis=1) - counts
    kept = bits_of(word)  # bit 2 * row + column of the pair
    at = first[:, :, None] + tl.cumsum(kept, axis=2) - kept
    value = tl.load(values + at, mask=kept > 0, other=0.0)
    tile = tl.permute(tl.reshape(value, [PANELS, PAIRS, 16, 2]), [0, 2, 1, 3])
    return tl.reshape(tile, [PANELS * 16, PAIRS * 2]), start + tl.sum(counts, axis=1)


@triton.jit
def load_pairs(bitmap, values, panel, start, first_pair, end_pair, num_pairs, num_panels, PAIRS: tl.constexpr):
    """`expand_pairs` of panels [P] from pair of columns first_pair on."""
    pair = first_pair + tl.arange(0, PAIRS)
    inside = (panel < num_panels)[:, None] & (pair < end_pair)[None, :]
    word = tl.load(bitmap + panel.to(tl.int64)[:, None] * num_pairs + pair[None, :], mask=inside, other=0)
    return expand_pairs(word, values, start)


@triton.jit
def load_tile_words(
    tiers, masks, panel, next_mask, first_tile, end_tile, num_tiles, num_panels, DENSE: tl.constexpr,
    EMPTY: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """Panels [P] from tile first_tile on, masks from `next_mask` int64 [P] on -> (the bits of pairs of columns as
    `expand_pairs` takes them, int32 [P, 8 * TILES]; the mask of what follows). Layout: `reference/tiered.py`."""
    pair = tl.arange(0, 8 * TILES)
    tile = first_tile + pair // 8
    inside = (panel < num_panels)[:, None] & (tile < end_tile)[None, :]
    tier = tl.load(tiers + panel.to(tl.int64)[:, None] * num_tiles + tile[None, :], mask=inside, other=EMPTY)
    masked = ((tier != DENSE) & (tier != EMPTY)).to(tl.int32)
    once = tl.where((pair % 8 == 0)[None, :], masked, 0)  # a mask counts with the first pair of its tile
    which = next_mask[:, None] + tl.cumsum(once, axis=1) - 1
    word = tl.load(masks + which * 8 + (pair % 8)[None, :], mask=masked > 0, other=0)
    return tl.where(tier == DENSE, -1, word), next_mask + tl.sum(once, axis=1)


@triton.jit
def skip_pairs(bitmap, panel, start, end_pair, num_pairs, num_panels, PAIRS: tl.constexpr):
    """`start` int64 [P] past the survivors of all pairs before end_pair."""
    for begin in range(0, end_pair, PAIRS):
        pair = begin + tl.arange(0, PAIRS)
        inside = (panel < num_panels)[:, None] & (pair < end_pair)[None, :]
        word = tl.load(bitmap + panel.to(tl.int64)[:, None] * num_pairs + pair[None, :], mask=inside, other=0)
        start += tl.sum(popcount(word), axis=1)
    return start


@triton.jit
def _quad_masks(bitmap, panel, first_quad, end_quad, num_quads, num_panels, BITS: tl.constexpr, QUADS: tl.constexpr):
    """Of each quarter (4 rows) of the quads of panels [P]: its 16 bits, the survivors of its quad before it, the bytes
    of its quad; int32 [P, 4 * QUADS], 0 outside. Quarters, so that a thread has 16 weights and their addresses to
    hold."""
    element = tl.arange(0, 4 * QUADS)
    quad, quarter = first_quad + element // 4, (element % 4)[None, :]
    inside = (panel < num_panels)[:, None] & (quad < end_quad)[None, :]
    at = panel.to(tl.int64)[:, None] * (2 * num_quads) + 2 * quad[None, :]
    low = tl.load(bitmap + at, mask=inside, other=0)
    high = tl.load(bitmap + at + 1, mask=inside, other=0)
    own = (tl.where(quarter < 2, low, high) >> (16 * (quarter % 2))) & 0xFFFF
    before_low = tl.where(quarter == 0, 0, tl.where(quarter == 1, low & 0xFFFF, low))
    before = popcount(before_low) + popcount(tl.where(quarter == 3, high & 0xFFFF, 0))
    return own, before, ((popcount(low) + popcount(high)) * BITS + 7) // 8


@triton.jit
def load_quads(
    bitmap, codes, panel, start, first_quad, end_quad, num_quads, num_panels, num_bytes, BITS: tl.constexpr,
    QUADS: tl.constexpr,
):  # fmt: skip
    """Panels [P] from quad first_quad on, codes from byte `start` int64 [P] on -> (codes int32 and kept int32, both
    [16 * P, 4 * QUADS]; the start of what follows). Element 4 * quad + b of a row is column 4 * quad +
    QUAD_ORDER[b]."""
    PANELS: tl.constexpr = panel.shape[0]
    word, before, sizes = _quad_masks(bitmap, panel, first_quad, end_quad, num_quads, num_panels, BITS, QUADS)
    # The bytes of a quad count with its first quarter; then all four see the end of their quad.
    once = tl.where((tl.arange(0, 4 * QUADS) % 4 == 0)[None, :], sizes, 0)
    first = start[:, None] + tl.cumsum(once, axis=1) - sizes
    kept = (word[:, :, None] >> tl.arange(0, 16)[None, None, :]) & 1  # bit 4 * row + b
    position = (before[:, :, None] + tl.cumsum(kept, axis=2) - kept) * BITS
    at = first[:, :, None] + position // 8
    code = tl.load(codes + at, mask=kept > 0, other=0).to(tl.int32)
    if 8 % BITS != 0:
        next_byte = (kept > 0) & (position % 8 + BITS > 8) & (at + 1 < num_bytes)
        code |= tl.load(codes + at + 1, mask=next_byte, other=0).to(tl.int32) << 8
    code = (code >> (position % 8)) & ((1 << BITS) - 1)
    return _rows(code, PANELS, QUADS), _rows(kept, PANELS, QUADS), start + tl.sum(once, axis=1)


@triton.jit
def _rows(tile, PANELS: tl.constexpr, QUADS: tl.constexpr):
    """[P, 4 * QUADS, 16] in the order of quarters and bits -> [16 * P, 4 * QUADS]."""
    quarters = tl.permute(tl.reshape(tile, [PANELS, QUADS, 4, 4, 4]), [0, 2, 3, 1, 4])
    return tl.reshape(quarters, [PANELS * 16, QUADS * 4])


@triton.jit
def skip_quads(
    bitmap, panel, start, end_quad, num_quads, num_panels, BITS: tl.constexpr, QUADS: tl.constexpr
):  # fmt: skip
    """`start` int64 [P], in bytes, past the codes of all quads before end_quad."""
    for begin in range(0, end_quad, QUADS):
        _, _, sizes = _quad_masks(bitmap, panel, begin, end_quad, num_quads, num_panels, BITS, QUADS)
        start += tl.sum(sizes, axis=1) // 4  # each quad's bytes stand there four times
    return start


@triton.jit
def quad_columns(first_quad, QUADS: tl.constexpr):
    """The columns of a tile of quads, in the order of `load_quads`: int32 [4 * QUADS]."""
    element = tl.arange(0, 4 * QUADS)
    return first_quad * 4 + element // 4 * 4 + 2 * (element & 1) + ((element >> 1) & 1)
