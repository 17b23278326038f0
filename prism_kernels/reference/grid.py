"""The uniform grid of a group: an integer zero point inside the code range, so that 0 decodes to exactly 0."""

import torch


def find_grid(values: torch.Tensor, kept: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """values [..., g], kept [..., g] bool -> (scale bf16 [...], zero u8 [...]), from the kept values; all in fp32.

    lo = min(0, values), hi = max(0, values), scale = bf16((hi - lo) / maxq), zero = rint(-lo / scale) in [0, maxq].
    A scale that is 0 (empty or all-zero group) or subnormal becomes 1; one beyond bf16 becomes the largest bf16.
    """
    maxq = 2**bits - 1
    limits = torch.finfo(torch.bfloat16)
    values = torch.where(kept, values.float(), 0.0)
    low, high = values.amin(-1).clamp(max=0), values.amax(-1).clamp(min=0)
    scale = ((high - low) / maxq).clamp(max=limits.max).bfloat16()
    scale = torch.where(scale >= limits.tiny, scale, torch.ones_like(scale))
    return scale, (-low / scale.float()).round().clamp(0, maxq).to(torch.uint8)


def round_to_grid(values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, bits: int) -> torch.Tensor:
    """values [..., g], scale bf16, zero u8 [...] -> codes u8 [..., g]: clamp(rint(value / scale) + zero, 0, maxq)."""
    steps = (values.float() / scale.float().unsqueeze(-1)).round()
    return (steps + zero.float().unsqueeze(-1)).clamp(0, 2**bits - 1).to(torch.uint8)
