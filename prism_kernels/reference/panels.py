"""The order in which every packed weight is stored: panels of 16 rows, in them quads of 16 rows x 4 columns.

A vector register of 16 lanes then holds one row per lane: group scales are vectors, sums need no reduction across
lanes, and a panel is one stream from its first column to its last. Rows past n and columns past k are stored as 0.
"""

import torch

from .codebooks import BITS

PANEL_ROWS = 16
QUAD_COLUMNS = 4
#: Byte b of a lane of a quad is column QUAD_ORDER[b]: the low bytes of the 16-bit words are columns 0 and 1, a pair for
#: bfloat16 dot products, the high bytes columns 2 and 3.
QUAD_ORDER = (0, 2, 1, 3)
#: Columns per block of packed codes: 8 quads.
BLOCK_COLUMNS = 32
#: Widths of the bit planes that codes are split into, low bits first.
PLANES = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 8: (8,)}
assert set(PLANES) == set(BITS)


def num_panels(n: int) -> int:
    return -(-n // PANEL_ROWS)


def rows_to_panels(rows: torch.Tensor) -> torch.Tensor:
    """[n, c] -> [ceil(n / 16), c, 16], rows past n are 0."""
    n, c = rows.shape
    padded = torch.nn.functional.pad(rows, (0, 0, 0, -n % PANEL_ROWS))
    return padded.reshape(num_panels(n), PANEL_ROWS, c).transpose(1, 2).contiguous()


def panels_to_rows(panels: torch.Tensor, n: int) -> torch.Tensor:
    """The inverse: [P, c, 16] -> [n, c]."""
    return panels.transpose(1, 2).reshape(panels.shape[0] * PANEL_ROWS, panels.shape[1])[:n].contiguous()


def to_quads(values: torch.Tensor, columns: int) -> torch.Tensor:
    """[n, k] -> [P, Q, 64], Q = ceil(k / columns) * columns / 4 quads: element 4 * row + b is column QUAD_ORDER[b]."""
    n, k = values.shape
    panels, num_quads = num_panels(n), -(-k // columns) * columns // QUAD_COLUMNS
    padded = torch.nn.functional.pad(values, (0, -k % columns, 0, -n % PANEL_ROWS))
    quads = padded.reshape(panels, PANEL_ROWS, num_quads, QUAD_COLUMNS)[..., QUAD_ORDER].transpose(1, 2)
    return quads.reshape(panels, num_quads, PANEL_ROWS * QUAD_COLUMNS)


def from_quads(quads: torch.Tensor, n: int, k: int) -> torch.Tensor:
    """The inverse: [P, Q, 64] -> [n, k]."""
    panels, num_quads = quads.shape[:2]
    inverse = [QUAD_ORDER.index(c) for c in range(QUAD_COLUMNS)]
    rows = quads.reshape(panels, num_quads, PANEL_ROWS, QUAD_COLUMNS)[..., inverse].transpose(1, 2)
    return rows.reshape(panels * PANEL_ROWS, num_quads * QUAD_COLUMNS)[:n, :k].contiguous()


def pack_zero(zero: torch.Tensor, bits: int) -> torch.Tensor:
    """u8 [n, G] -> [P, G, 16], or up to 4 bits [P, G, 8]: byte i holds rows i (low nibble) and i + 8 (high nibble)."""
    panels = rows_to_panels(zero)
    return panels if bits > 4 else panels[..., :8] | panels[..., 8:] << 4


def unpack_zero(packed: torch.Tensor, n: int, bits: int) -> torch.Tensor:
    """The inverse: u8 [n, G]."""
    panels = packed if bits > 4 else torch.cat([packed & 15, packed >> 4], dim=-1)
    return panels_to_rows(panels, n)


def pack_planes(quads: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes u8 [P, Q, 64], Q a multiple of 8 -> u8 [P, Q / 8, bits, 64]: in every block of 8 quads one plane after the
    other; a plane of w bits is w vectors of 64 bytes, quad q in vector q // (8 // w), shifted by w * (q % (8 // w))."""
    blocks = quads.unflatten(1, (quads.shape[1] // 8, 8))
    vectors, shift = [], 0
    for width in PLANES[bits]:
        plane = (blocks >> shift) & (2**width - 1)
        per_vector = 8 // width
        plane = plane.unflatten(2, (width, per_vector))
        vectors.append(sum(plane[:, :, :, i] << width * i for i in range(per_vector)))
        shift += width
    return torch.cat(vectors, dim=2)


def unpack_planes(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """The inverse: u8 [P, B, bits, 64] -> [P, 8 * B, 64]."""
    codes = packed.new_zeros(packed.shape[0], packed.shape[1], 8, packed.shape[3])
    shift = 0
    for width in PLANES[bits]:
        plane = packed[:, :, shift : shift + width]  # as many vectors as bits lie before it
        fields = torch.stack([(plane >> width * i) & (2**width - 1) for i in range(8 // width)], dim=3)
        codes |= fields.flatten(2, 3) << shift
        shift += width
    return codes.flatten(1, 2)
