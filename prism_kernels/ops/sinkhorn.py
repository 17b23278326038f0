"""Sinkhorn factors of a weight matrix, and the column scale that a quantized matrix stores."""

import torch

from ..reference.sinkhorn import sinkhorn as reference
from ._check import require, require_float, require_tensor
from ._define import define


def _fake(weight: torch.Tensor, mask: torch.Tensor | None, variant: str, iterations: int):
    b, n, k = weight.shape
    exact = torch.promote_types(weight.dtype, torch.float32)
    return weight.new_empty(b, k, dtype=exact), weight.new_empty(b, n, dtype=exact)


define(
    "sinkhorn(Tensor weight, Tensor? mask, str variant, int iterations) -> (Tensor, Tensor)",
    reference=reference,
    fake=_fake,
)

VARIANTS = ("sinq", "prism", "rms")
METHODS = ("none", "rms", "sinq", "prism")
_STRIP_ELEMENTS = 2**22


def sinkhorn(
    weight: torch.Tensor, mask: torch.Tensor | None = None, *, variant: str, iterations: int = 16
) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors mu1 (columns) and mu2 (rows) such that weight / mu1 / mu2 has even row and column spreads.

    All statistics are over kept entries. Weights must be finite where kept; pruned ones are never looked at.

    * "sinq": the iteration of SINQ (arXiv 2509.22944). Unbiased standard deviations of rows and columns of the same
      scaled matrix are divided down to the smallest one of the input, each step within [0.7, 2] and each factor within
      [e^-0.3, e^10], until the imbalance (largest over smallest) grows; the factors of least imbalance are returned.
      Rows and columns without two different kept entries are left out and keep factor 1.
    * "prism": the sparse-aware iteration of SDMuhsin/PRISM. Rows, then columns, are divided by their population
      standard deviation (at least 1e-4), factors within [e^-10, e^10]; those without a kept entry keep factor 1.
    * "rms": no iteration. Column root mean square over its geometric mean, within [1/10, 10]; columns without a nonzero
      kept entry and all rows have factor 1.

    Args:
        weight: [b, n, k] (b independent matrices) or [n, k]; float32, float16 or bfloat16.
        mask: bool of the same shape, True = kept; None keeps everything.
        variant: "sinq", "prism" or "rms".
        iterations: >= 0, not used by "rms".

    Returns:
        (column_factor [b, k], row_factor [b, n]) in float32, without the first dimension for a 2-D weight.

    Example:
        >>> sinkhorn(torch.tensor([[1.0, 4.0], [-1.0, 4.0]]), variant="rms")[0]
        tensor([0.5000, 2.0000])
    """
    require_float(weight, "sinkhorn", "weight")
    require(weight.dim() in (2, 3), "sinkhorn", "weight", "have 2 or 3 dimensions", list(weight.shape))
    if mask is not None:
        require_tensor(mask, "sinkhorn", "mask", shape=tuple(weight.shape), dtype=torch.bool, device=weight.device)
    require(variant in VARIANTS, "sinkhorn", "variant", "be 'sinq', 'prism' or 'rms'", repr(variant))
    require(iterations >= 0, "sinkhorn", "iterations", "be at least 0", iterations)
    batched = weight.dim() == 3
    # bfloat16 is read as it lies: half the bytes of every iteration.
    weight = weight if weight.dtype == torch.bfloat16 else weight.float()
    weight = (weight if batched else weight[None]).contiguous()
    if mask is not None:
        mask = (mask if batched else mask[None]).contiguous()
    column, row = torch.ops.prism.sinkhorn.default(weight, mask, variant, iterations)
    return (column, row) if batched else (column[0], row[0])


def column_scale(
    weight: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    method: str,
    group_size: int = 64,
    iterations: int = 16,
) -> torch.Tensor:
    """The column scale c of `w = (q - z) * s * c`, by one of four methods.

    A row factor would be absorbed by the scale of each (row, group) without changing a code, so only columns matter.

    Args:
        weight: [n, k], float32, float16 or bfloat16; finite where kept.
        mask: bool [n, k], True = kept; None keeps everything.
        method: "none" (ones), "rms" or "prism" (`sinkhorn` of the whole matrix), or "sinq" (`sinkhorn` of each strip of
            `group_size` columns, the last one possibly narrower).
        group_size: columns of a quantization group, >= 1; only "sinq" uses it.
        iterations: >= 0; "sinq" and "prism" use it.

    Returns:
        bfloat16 [k], finite and > 0; columns without a kept entry get 1.

    Example:
        >>> column_scale(torch.tensor([[1.0, 4.0], [-1.0, 4.0]]), method="rms")
        tensor([0.5000, 2.0000], dtype=torch.bfloat16)
    """
    require_float(weight, "column_scale", "weight", shape=(None, None))
    if mask is not None:
        require_tensor(mask, "column_scale", "mask", shape=tuple(weight.shape), dtype=torch.bool, device=weight.device)
    require(method in METHODS, "column_scale", "method", "be 'none', 'rms', 'sinq' or 'prism'", repr(method))
    require(group_size >= 1, "column_scale", "group_size", "be at least 1", group_size)
    require(iterations >= 0, "column_scale", "iterations", "be at least 0", iterations)
    if method == "none":
        return torch.ones(weight.shape[1], dtype=torch.bfloat16, device=weight.device)
    if method == "sinq":
        return _strip_factors(weight, mask, group_size, iterations).bfloat16()
    return sinkhorn(weight, mask, variant=method, iterations=iterations)[0].bfloat16()


def _strip_factors(weight: torch.Tensor, mask: torch.Tensor | None, group_size: int, iterations: int) -> torch.Tensor:
    """ "sinq" column factors per strip of `group_size` columns. A narrower last strip is a call of its own."""
    n, k = weight.shape
    whole = k - k % group_size
    # A few strips at a time, so that their copy stays small and in the cache.
    step = group_size * max(1, _STRIP_ELEMENTS // max(1, n * group_size))
    parts = [(begin, min(begin + step, whole), group_size) for begin in range(0, whole, step)]
    if whole < k:
        parts.append((whole, k, k - whole))
    factors = [torch.ones(0, device=weight.device)]
    for begin, end, width in parts:
        shape = n, (end - begin) // width, width
        strips = weight[:, begin:end].reshape(shape).transpose(0, 1)
        kept = None if mask is None else mask[:, begin:end].reshape(shape).transpose(0, 1)
        factors.append(sinkhorn(strips, kept, variant="sinq", iterations=iterations)[0].flatten())
    return torch.cat(factors)
