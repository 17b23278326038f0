"""The order in which a GPU holds 2:4 weights: fragments of sparse tensor cores (`mma.sp` m16n8k32, operand A).

Derived from the canonical bitmap tensors and never stored. Rows are padded to panels of 16, columns to tiles of 64, two
steps of 32. Of each quad (a row, 4 columns) the two stored elements are a pair, the lower column first. In a step,

    row 2 g + h, h < 2, and quad 4 p + 2 i + j, p, i, j < 2, belong to lane 4 g + 2 j + p, register 2 i + h

so that lane 4 g + t multiplies what one 16-byte load brings it, columns 8 t to 8 t + 7 of a step of an activation,
after lanes t and t ^ 1 have swapped halves. Rows and quads are dummy indices of the product and may be permuted,
columns in a quad may not. Three tensors, P = ceil(n / 16), T = ceil(k / 64):

    values    16-bit floats [P, T, 2 steps, 32 lanes, 4 registers x 2]
    codes     int32 [P, T, 32 lanes, 2 steps]: pair r of a word has its nibbles at bits 4 r and 16 + 4 r
    columns   int32 [P, T, 32 lanes]: lane 4 g + 2 step + i; bits 4 (4 h + 2 j + p) to + 3 hold c0 | c1 << 2, the
              columns c0 < c1 in their quad; the metadata of the instruction, which reads lanes 0 and 1 of each four
              with selector 0 and lanes 2 and 3 with selector 1

Bits per weight: 8 + 1 for values, 2 + 1 for codes, and the scales.
"""

import torch
import torch.nn.functional as F

from .panels import PANEL_ROWS, num_panels

QUAD = 4
TILE_COLUMNS = 64
LANES = 32
# Axes of quads (panel, g, h, tile, step, p, i, j, columns of the quad), reordered for each tensor.
_AXES = (8, 2, -1, 2, 2, 2, 2)
_VALUES = (0, 3, 4, 1, 7, 5, 6, 2, 8)  # panel, tile, step, g, j, p, i, h, kept
_CODES = (0, 3, 1, 7, 5, 4, 8, 6, 2)  # panel, tile, g, j, p, step; kept, i, h
_COLUMNS = (0, 3, 1, 4, 6, 2, 7, 5)  # panel, tile, g, step, i; h, j, p


def num_tiles(k: int) -> int:
    return -(-k // TILE_COLUMNS)


def to_quads(dense: torch.Tensor) -> torch.Tensor:
    """[n, k] -> [P, 8, 2, T, 2, 2, 2, 2, 4], padded with 0."""
    n, k = dense.shape
    padded = F.pad(dense, (0, -k % TILE_COLUMNS, 0, -n % PANEL_ROWS))
    return padded.reshape(num_panels(n), *_AXES[:2], num_tiles(k), *_AXES[3:], QUAD)


def from_quads(quads: torch.Tensor, n: int, k: int) -> torch.Tensor:
    """The inverse: [n, k]."""
    return quads.reshape(num_panels(n) * PANEL_ROWS, num_tiles(k) * TILE_COLUMNS)[:n, :k].contiguous()


def to_words(nibbles: torch.Tensor) -> torch.Tensor:
    """[..., 8] -> int32 [...], the first nibble in the low bits."""
    shifted = nibbles.long() << torch.arange(0, 32, 4, device=nibbles.device)
    return shifted.sum(-1).to(torch.int32)


def from_words(words: torch.Tensor) -> torch.Tensor:
    """The inverse: int64 [..., 8]."""
    return (words.long().unsqueeze(-1) >> torch.arange(0, 32, 4, device=words.device)) & 15


def order_values(pairs: torch.Tensor) -> torch.Tensor:
    """Stored pairs [P, 8, 2, T, 2, 2, 2, 2, 2] -> values [P, T, 2, 32, 8]."""
    return pairs.permute(_VALUES).reshape(pairs.shape[0], pairs.shape[3], 2, LANES, 8)


def order_codes(pairs: torch.Tensor) -> torch.Tensor:
    """Stored pairs of codes below 16 -> words [P, T, 32, 2]."""
    return to_words(pairs.permute(_CODES).reshape(pairs.shape[0], pairs.shape[3], LANES, 2, 8))


def order_columns(columns: torch.Tensor) -> torch.Tensor:
    """Columns c0 < c1 of each quad, [..., 2] -> words [P, T, 32]."""
    nibbles = columns[..., 0] | columns[..., 1] << 2
    return to_words(nibbles.permute(_COLUMNS).reshape(columns.shape[0], columns.shape[3], LANES, 8))


def _restore(ordered: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    return ordered.permute([axes.index(i) for i in range(len(axes))])


def restore_pairs(packed: torch.Tensor) -> torch.Tensor:
    """The inverse of `order_values`, or for int32 of `order_codes` (then int64)."""
    panels, tiles = packed.shape[:2]
    if packed.dtype == torch.int32:
        return _restore(from_words(packed).reshape(panels, tiles, 8, 2, 2, 2, 2, 2, 2), _CODES)
    return _restore(packed.reshape(panels, tiles, 2, 8, 2, 2, 2, 2, 2), _VALUES)


def restore_columns(words: torch.Tensor) -> torch.Tensor:
    """The inverse of `order_columns`: int64 [P, 8, 2, T, 2, 2, 2, 2, 2]."""
    nibbles = _restore(from_words(words).reshape(*words.shape[:2], 8, 2, 2, 2, 2, 2), _COLUMNS)
    return torch.stack([nibbles & 3, nibbles >> 2], dim=-1)
