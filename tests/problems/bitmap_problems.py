"""Masks and weights that the tests of the bitmap ops, formats and modules share."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from prism_kernels import ops
from prism_kernels.reference.codebooks import levels
from prism_kernels.reference.panels import pack_zero, rows_to_panels

#: (bits, codebook) of every grid.
GRIDS = [(2, "uniform"), (3, "uniform"), (4, "uniform"), (5, "uniform"), (6, "uniform"), (8, "uniform")]
GRIDS += [(4, "nf4"), (3, "nf3")]
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
#: Odd shapes first: every tail of a panel, a pair and a quad; 1009 is more than one tile of columns.
SHAPES = [(1, 1), (2, 3), (5, 7), (15, 63), (16, 64), (17, 65), (31, 127), (33, 200), (2, 1009), (0, 16), (3, 0)]
#: Words, columns, odd, and longer than the rows.
GROUPS = (1, 4, 16, 32, 48, 64, 100, 128, 5000)


def masks(n: int, k: int, generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    """Bool [n, k] masks: every density, dead rows and columns, full and empty quads, single survivors."""
    for density in (0.0, 0.1, 0.5, 0.9, 1.0):
        yield f"density {density}", torch.rand(n, k, generator=generator) < density
    mask = torch.rand(n, k, generator=generator) < 0.5
    mask[::2] = False
    yield "dead rows", mask
    mask = torch.rand(n, k, generator=generator) < 0.5
    mask[:, ::3] = False
    mask[:, k // 2 :][:, :7] = False
    yield "dead columns", mask
    mask = torch.zeros(n, k, dtype=torch.bool)
    if n and k:
        mask[torch.arange(n), torch.randint(k, (n,), generator=generator)] = True
    yield "one survivor per row", mask
    mask = torch.zeros(n, k, dtype=torch.bool)
    mask[:16, 4:8] = True
    yield "one full quad", mask


def quad_mask(n: int, k: int, generator: torch.Generator, density: float = 1.0) -> torch.Tensor:
    """A 2:4 mask; below density 1 some quads keep fewer."""
    mask = ops.nm_mask(torch.rand(n, k, generator=generator), 2, 4)
    return mask & (torch.rand(n, k, generator=generator) < density)


def mixed_mask(n: int, k: int, generator: torch.Generator) -> torch.Tensor:
    """Rows of all densities, the first and a middle one dead, the last one full."""
    mask = torch.rand(n, k, generator=generator) < torch.rand(n, 1, generator=generator)
    if n > 2:
        mask[0] = mask[n // 2] = False
        mask[-1] = True
    return mask


@dataclass
class DualShift:
    """One weight: the tensors of the ops, and what they must decode to."""

    bitmap: torch.Tensor
    codes: torch.Tensor
    panel_offsets: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    column_scale: torch.Tensor
    grid: dict
    mask: torch.Tensor
    exact: torch.Tensor  # float64 [n, k]
    unscaled: torch.Tensor  # the same without column_scale
    rounded: torch.Tensor  # the same, levels rounded to bfloat16

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        return (self.bitmap, self.codes, self.panel_offsets, self.scale, self.zero, self.column_scale)


def dual_shift(mask: torch.Tensor, bits: int, group_size: int, codebook: str, generator: torch.Generator) -> DualShift:
    """Random codes, scales and zeros behind `mask`; the decoded weight is computed without the ops."""
    n, k = mask.shape
    num_groups = -(-k // group_size)
    group = torch.arange(k) // group_size
    codes = torch.randint(2**bits, (n, k), generator=generator, dtype=torch.uint8)
    zero = torch.randint(2**bits, (n, num_groups if codebook == "uniform" else 0), generator=generator).byte()
    scale = (0.01 + torch.rand(n, num_groups, generator=generator)).bfloat16()
    column_scale = (0.5 + torch.rand(k, generator=generator)).bfloat16()
    if codebook == "uniform":
        steps = codes.double() - zero.double()[:, group]
    else:
        steps = levels(codebook).double()[codes.int()]
    unscaled = torch.where(mask, steps * scale.double()[:, group], 0.0)
    rounded = torch.where(mask, steps.bfloat16().double() * scale.double()[:, group], 0.0)
    packed = ops.bitmap_dual_shift_pack(codes, mask, bits)
    grid = {"n": n, "bits": bits, "group_size": group_size, "codebook": codebook}
    panels = rows_to_panels(scale)
    zeros = pack_zero(zero, bits) if codebook == "uniform" else zero.new_zeros(*panels.shape[:2], 0)
    exact = unscaled * column_scale.double()
    return DualShift(*packed, panels, zeros, column_scale, grid, mask, exact, unscaled, rounded)
