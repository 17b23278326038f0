"""Activations as int8 times one scale per token: what the linears multiply by at activation_bits = 8."""

import torch


def quantize_activations(x: torch.Tensor, column_scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x [m, k], column_scale [k] -> (q [m, k], whole numbers from -127 to 127, and s [m, 1]), both float32, such that
    s * q is about x * column_scale: s = max|x c| / 127, 1 where that is 0; q = x c / s, rounded half to even."""
    scaled = x.float() * column_scale.float()
    largest = scaled.abs().amax(-1, keepdim=True) if scaled.shape[-1] else scaled.new_zeros(*scaled.shape[:-1], 1)
    scale = largest / 127  # 0 where the largest is, and where it is so small that the quotient underflows
    scale = torch.where(scale > 0, scale, 1.0)
    return (scaled / scale).round().clamp(-127, 127), scale
