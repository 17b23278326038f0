"""Group quantization of a column-scaled weight."""

import torch

from ..reference.dual_shift_quantize import dual_shift_quantize as reference
from ._check import require_float, require_tensor
from ._define import define
from ._dual_shift import require_grid


def _fake(weight, column_scale, mask, bits, group_size, codebook):
    n, k = weight.shape
    num_groups = -(-k // group_size)
    codes = weight.new_empty(n, k, dtype=torch.uint8)
    scale = weight.new_empty(n, num_groups, dtype=torch.bfloat16)
    return codes, scale, codes.new_empty(n, num_groups if codebook == "uniform" else 0)


define(
    "dual_shift_quantize(Tensor weight, Tensor column_scale, Tensor? mask, int bits, int group_size, str codebook)"
    " -> (Tensor codes, Tensor scale, Tensor zero)",
    reference=reference,
    fake=_fake,
)


def dual_shift_quantize(
    weight: torch.Tensor,
    column_scale: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    bits: int,
    group_size: int,
    codebook: str = "uniform",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Quantizes weight / column_scale in groups of `group_size` columns, row by row.

    Uniform, over the kept v = weight / column_scale of a group, in float32: lo = min(0, v), hi = max(0, v),
    s = bf16((hi - lo) / maxq), z = rint(-lo / s), q = clamp(rint(v / s) + z, 0, maxq) with maxq = 2**bits - 1; the
    hull contains 0, so z is a code and 0 is exact. "nf4" and "nf3": s = bf16(max |v|), q = the nearest level of v / s.
    Pruned weights get the code that decodes to exactly 0. A scale that is 0 (empty or all-zero group) or subnormal
    becomes 1, one beyond bfloat16 its largest number.

    The column scale is the second scale of SINQ (arXiv 2509.22944), restated in `prism_kernels.ops.column_scale`.

    Args:
        weight: [n, k], float32, float16 or bfloat16; finite.
        column_scale: bfloat16 [k]; finite and > 0.
        mask: bool [n, k], True = kept; None keeps all.
        bits: 2, 3, 4, 5, 6 or 8; 4 for "nf4", 3 for "nf3".
        group_size: columns per group, >= 1; the last group of a row may be shorter.
        codebook: "uniform", "nf4" or "nf3".

    Returns:
        (codes u8 [n, k], unpacked; scale bfloat16 [n, G]; zero u8 [n, G], unpacked, or [n, 0] for "nf4" and "nf3"),
        G = ceil(k / group_size).
    """
    op = "dual_shift_quantize"
    require_float(weight, op, "weight", shape=(None, None))
    n, k = weight.shape
    require_tensor(column_scale, op, "column_scale", shape=(k,), dtype=torch.bfloat16, device=weight.device)
    if mask is not None:
        require_tensor(mask, op, "mask", shape=(n, k), dtype=torch.bool, device=weight.device)
    require_grid(op, bits, group_size, codebook)
    return torch.ops.prism.dual_shift_quantize.default(
        weight.contiguous(),
        column_scale.contiguous(),
        None if mask is None else mask.contiguous(),
        bits,
        group_size,
        codebook,
    )
