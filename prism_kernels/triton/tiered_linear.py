"""y = x @ weight^T over tiles of 16 x 16, dense, masked or empty: all three streams are one, masked, path.

A program expands 4 panels (64 rows) x 4 tiles (64 columns) a step, where a dense tile is one whose mask is full, and
multiplies them with up to 64 tokens on tensor cores, where weights and activations share a 16-bit dtype; otherwise 2
panels in float32 on CUDA cores. Along k it carries where each panel's masks and values go on; a part of k that begins
in the middle counts what lies before it: hence at most 4 parts. Bound: what is stored of the weight, read once; a load
instruction per weight, kept or not, comes next. Not measured.
"""

import torch
import triton
import triton.language as tl

from ..reference.tiered import DENSE, EMPTY
from ._bits import expand_pairs, load_tile_words, popcount
from ._finish import add_parts, finish, parts_of_k
from ._launch import cdiv, launch, multiprocessors, next_power_of_2

_TILES, _PARTS = 4, 4
#: Panels of a program: on tensor cores, and in float32, where more would spill.
_PANELS = {False: 4, True: 2}


@triton.jit
def _tiered_linear_kernel(
    x, tiers, masks, values, panel_offsets, bias, out, m, n, k, num_tiles, steps_each,
    DENSE: tl.constexpr, EMPTY: tl.constexpr, PLAIN: tl.constexpr, HAS_BIAS: tl.constexpr, WHOLE: tl.constexpr,
    PANELS: tl.constexpr, TILES: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    num_panels = (n + 15) // 16
    panel = tl.program_id(0) * PANELS + tl.arange(0, PANELS)
    row = tl.program_id(0) * PANELS * 16 + tl.arange(0, PANELS * 16)
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    first = tl.program_id(2) * steps_each * TILES
    end = tl.minimum(first + steps_each * TILES, num_tiles)
    next_mask = tl.load(panel_offsets + 2 * panel, mask=panel < num_panels, other=0)
    next_value = tl.load(panel_offsets + 2 * panel + 1, mask=panel < num_panels, other=0)
    for tile in range(0, first, TILES):
        word, next_mask = load_tile_words(
            tiers, masks, panel, next_mask, tile, first, num_tiles, num_panels, DENSE, EMPTY, TILES
        )
        next_value += tl.sum(popcount(word), axis=1)
    sums = tl.zeros([PANELS * 16, TOKENS], tl.float32)
    for tile in range(first, end, TILES):
        word, next_mask = load_tile_words(
            tiers, masks, panel, next_mask, tile, end, num_tiles, num_panels, DENSE, EMPTY, TILES
        )
        weights, next_value = expand_pairs(word, values, next_value)
        column = 16 * tile + tl.arange(0, 16 * TILES)
        inside = (column < k)[:, None] & (token < m)[None, :]
        inputs = tl.load(x + token.to(tl.int64)[None, :] * k + column[:, None], mask=inside, other=0.0)
        if PLAIN:
            sums += tl.dot(weights.to(tl.float32), inputs.to(tl.float32), input_precision="ieee")
        else:
            sums += tl.dot(weights, inputs)
    inside = (row < n)[:, None] & (token < m)[None, :]
    at = token.to(tl.int64)[None, :] * n + row[:, None]
    if WHOLE:
        sums = finish(sums, token[None, :], row[:, None], bias, bias, m, n, False, HAS_BIAS)
        tl.store(out + at, sums.to(out.dtype.element_ty), mask=inside)
    else:
        tl.store(out + tl.program_id(2).to(tl.int64) * m * n + at, sums, mask=inside)


def tiered_linear(
    x: torch.Tensor,
    tiers: torch.Tensor,
    masks: torch.Tensor,
    values: torch.Tensor,
    panel_offsets: torch.Tensor,
    bias: torch.Tensor | None,
    n: int,
) -> torch.Tensor:
    """As `ops.tiered_linear` on x [m, k]."""
    (m, k), tiles = x.shape, tiers.shape[1]
    out = torch.empty(m, n, dtype=x.dtype, device=x.device)
    tokens = min(max(next_power_of_2(m), 16), 64)
    plain = x.dtype == torch.float32 or values.dtype != x.dtype
    panels = _PANELS[plain]
    grid = cdiv(n, 16 * panels), cdiv(m, tokens)
    parts, each = parts_of_k(grid[0] * grid[1], cdiv(tiles, _TILES), _PARTS, multiprocessors(x.device))
    whole = parts <= 1
    sums = out if whole else torch.empty(parts, m, n, dtype=torch.float32, device=x.device)
    launch(
        _tiered_linear_kernel, (*grid, max(parts, 1)), x=x, tiers=tiers, masks=masks.view(torch.int32), values=values,
        panel_offsets=panel_offsets, bias=x if bias is None else bias, out=sums, m=m, n=n, k=k, num_tiles=tiles,
        steps_each=each, DENSE=DENSE, EMPTY=EMPTY, PLAIN=plain, HAS_BIAS=bias is not None, WHOLE=whole, PANELS=panels,
        TILES=_TILES, TOKENS=tokens, contract=True,
    )  # fmt: skip
    if not whole:
        add_parts(sums, None, bias, out)
    return out
