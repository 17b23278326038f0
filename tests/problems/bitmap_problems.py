"""Masks and weights that the tests of the bitmap ops, formats and modules share."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from prism_kernels import ops
from prism_kernels.reference.codebooks import levels

#: (bits, codebook) of every grid.
GRIDS = [(2, "uniform"), (3, "uniform"), (4, "uniform"), (5, "uniform"), (6, "uniform"), (8, "uniform")]
GRIDS += [(4, "nf4"), (3, "nf3")]
FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def masks(n: int, k: int, generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    """Bool [n, k] masks: every density, dead rows and columns, full and empty blocks, single survivors."""
    for density in (0.0, 0.02, 0.5, 0.9, 1.0):
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
    mask[:, 64:128] = True
    yield "one full block", mask


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
    row_offsets: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    column_scale: torch.Tensor
    grid: dict
    mask: torch.Tensor
    exact: torch.Tensor  # float64 [n, k]

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        return (self.bitmap, self.codes, self.row_offsets, self.scale, self.zero, self.column_scale)


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
    exact = torch.where(mask, steps * scale.double()[:, group] * column_scale.double(), 0.0)
    packed = ops.bitmap_dual_shift_pack(codes, mask, bits)
    grid = {"bits": bits, "group_size": group_size, "codebook": codebook}
    return DualShift(*packed, scale, ops.pack_codes(zero, bits), column_scale, grid, mask, exact)
