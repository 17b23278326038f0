"""Codes, group scales and zero points of a column-scaled weight."""

import torch

from .codebooks import LEVELS, nearest_level
from .grid import find_grid, round_to_grid


def dual_shift_quantize(
    weight: torch.Tensor,
    column_scale: torch.Tensor,
    mask: torch.Tensor | None,
    bits: int,
    group_size: int,
    codebook: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """weight [n, k], column_scale bf16 [k], mask bool [n, k] -> (codes u8 [n, k], scale bf16 [n, G], zero u8 [n, G] or
    [n, 0]); all arithmetic in fp32 on weight / column_scale. A pruned weight gets the code that decodes to 0."""
    n, k = weight.shape
    width = max(min(group_size, k), 1)
    kept = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask
    shape, padding = (n, -(-k // width), width), (0, -k % width)
    values = torch.nn.functional.pad(weight.float() / column_scale.float(), padding).reshape(shape)
    kept = torch.nn.functional.pad(kept, padding).reshape(shape)
    if codebook == "uniform":
        scale, zero = find_grid(values, kept, bits)
        codes = torch.where(kept, round_to_grid(values, scale, zero, bits), zero.unsqueeze(-1))
        return codes.flatten(1)[:, :k].contiguous(), scale, zero
    limits = torch.finfo(torch.bfloat16)
    values = torch.where(kept, values, 0.0)
    scale = values.abs().amax(-1).clamp(max=limits.max).bfloat16()
    scale = torch.where(scale >= limits.tiny, scale, torch.ones_like(scale))
    codes = nearest_level(values / scale.float().unsqueeze(-1), codebook)
    codes = torch.where(kept, codes, LEVELS[codebook].index(0.0))
    return codes.flatten(1)[:, :k].contiguous(), scale, codes.new_empty(n, 0)
