"""Half-quadratic zero points (HQQ, Badri and Shaji 2023; "hqq" of huawei-csl/SINQ): better zeros, same scales."""

from __future__ import annotations

import torch
from torch import Tensor

from prism_kernels import ops
from prism_kernels.reference.grid import round_to_grid

STEPS = 20
LP_NORM = 0.7
BETA = 10.0


def refine_zeros(
    weight: Tensor, column_scale: Tensor, mask: Tensor | None = None, *, bits: int, group_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes whose zero points minimize the mean |v - v_hat| of their group among those that 20 proximal steps visit.

    With v = weight / column_scale and the scale s of rounding to nearest, the real zero z starts at -min(0, v) / s.
    Each step rounds, q = clamp(rint(v / s + z), 0, maxq), shrinks the error e = v - (q - z) s to
    sign(e) max(|e| - |e|^(p - 1) / beta, 0) with p = 0.7, beta = 10, |e| within [1e-5, 1e5], and takes as the next z
    the mean over kept weights of q - (v - shrunk) / s. Each z is rounded to a code and judged by what it really decodes
    to, group by group; the zero of rounding to nearest is the first, so no group gets worse.

    Deviations:
        in-range integer zero: so that a pruned weight is exactly 0 (the original's is a real number). Most of the
            original's freedom is in the fraction of its zero: with integers, few groups find a better one (up to 3 %
            of Gaussian ones).
        one iterate: codes belong to the zero that is kept (the original keeps the best zero but the last codes).
        a group's own best: the original compares the mean error of whole tiles.

    Args:
        weight: float32 [n, k].
        column_scale: bfloat16 [k].
        mask: bool [n, k], True = kept; None keeps all.
        bits, group_size: as `prism_kernels.ops.dual_shift_quantize`, uniform codes.

    Returns:
        (codes u8 [n, k], scale bfloat16 [n, G], zero u8 [n, G]), as `prism_kernels.ops.dual_shift_quantize`.
    """
    n, k = weight.shape
    codes, scale, zero = ops.dual_shift_quantize(weight, column_scale, mask, bits=bits, group_size=group_size)
    if codes.numel() == 0:
        return codes, scale, zero
    width, maxq = max(min(group_size, k), 1), 2**bits - 1
    kept = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask
    padding = (0, -k % width)
    values = torch.nn.functional.pad(weight / column_scale.float(), padding).view(n, -1, width)
    counted = torch.nn.functional.pad(kept, padding).view(n, -1, width)
    values = torch.where(counted, values, 0.0)
    step = scale.float().unsqueeze(-1)
    number = counted.sum(-1).clamp(min=1)
    real = -values.amin(-1).clamp(max=0) / scale.float()
    best, lowest = zero, _error(values, counted, scale, zero, bits)
    for _ in range(STEPS):
        rounded = (values / step + real.unsqueeze(-1)).round().clamp(0, maxq)
        error = values - (rounded - real.unsqueeze(-1)) * step
        moved = rounded - (values - _shrink(error)) / step
        real = torch.where(counted, moved, 0.0).sum(-1) / number
        candidate = real.round().clamp(0, maxq).to(torch.uint8)
        found = _error(values, counted, scale, candidate, bits)
        better = found < lowest
        best, lowest = torch.where(better, candidate, best), torch.where(better, found, lowest)
    refined = torch.where(counted, round_to_grid(values, scale, best, bits), best.unsqueeze(-1))
    return refined.flatten(1)[:, :k].contiguous(), scale, best


def _shrink(error: Tensor) -> Tensor:
    size = error.abs().clamp(1e-5, 1e5)
    return (size - size.pow(LP_NORM - 1) / BETA).clamp(min=0) * error.sign()


def _error(values: Tensor, counted: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """float64 [n, G]: sum over kept weights of |v - (q - z) s|."""
    codes = round_to_grid(values, scale, zero, bits)
    decoded = (codes.float() - zero.float().unsqueeze(-1)) * scale.float().unsqueeze(-1)
    return torch.where(counted, (values - decoded).abs(), 0.0).sum(-1, dtype=torch.float64)
