"""The column scale c of `w = (q - z) * s * c`, where `prism_kernels.ops.column_scale` does not find it by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from prism_kernels import ops
from prism_kernels.reference.codebooks import levels

from ..calibration import InputStatistics
from ..memory import return_free_memory

ALPHAS = tuple(step / 20 for step in range(20))
_LEAST = 1e-4
# Copies in float32 stay small beside a block; products need more rows to be efficient.
_ROWS_AT_A_TIME = 256

SearchError = Literal["l1", "l2"]


def find_column_scale(
    weight: Tensor,
    mask: Tensor | None,
    *,
    method: str,
    bits: int,
    group_size: int,
    codebook: str = "uniform",
    statistics: InputStatistics | None = None,
    search_error: SearchError = "l1",
) -> Tensor:
    """The column scale, bfloat16 [k], of weight float32 [n, k] under mask bool [n, k] (None keeps all).

    method: "sinq_2d" (`tiled_column_scale`), "sinq_with_zeros" (SINQ's factors of the pruned matrix, its zeros counted,
    to compare with), "asinq" (`searched_column_scale`, which needs statistics with X^T X), or one of
    `prism_kernels.ops.column_scale`.
    """
    if method == "sinq_with_zeros":
        pruned = weight if mask is None else torch.where(mask, weight, 0.0)
        return ops.column_scale(pruned, method="sinq", group_size=group_size)
    if method == "sinq_2d":
        return tiled_column_scale(weight, mask, group_size)
    if method != "asinq":
        return ops.column_scale(weight, mask, method=method, group_size=group_size)
    if statistics is None:
        raise ValueError("find_column_scale: statistics must be given for method asinq, got None")
    grid = {"bits": bits, "group_size": group_size, "codebook": codebook}
    return searched_column_scale(weight, mask, statistics, search_error=search_error, **grid)  # type: ignore[arg-type]


def tiled_column_scale(weight: Tensor, mask: Tensor | None, group_size: int) -> Tensor:
    """SINQ's 2-D tiling: Sinkhorn column factors of every `group_size` x `group_size` tile, shared by all tiles of a
    column as their geometric mean over those that keep an entry of it.

    A scale per column of every tile, as the original stores, would be n / group_size vectors; one vector is what the
    storage formats and kernels have. The tiles' row factors change no code under a scale per (row, group), because they
    scale its range and its entries alike, so they are in the group scales by construction. The last tiles may be
    narrower or shorter.

    Returns:
        bfloat16 [k]; 1 where nothing is kept.
    """
    n, k = weight.shape
    total = torch.zeros(k, dtype=torch.float64, device=weight.device)
    count = torch.zeros_like(total)
    for begin in range(0, n, group_size):
        rows = slice(begin, begin + group_size)
        kept = None if mask is None else mask[rows]
        factors = ops.column_scale(weight[rows], kept, method="sinq", group_size=group_size)
        counted = torch.ones_like(total) if kept is None else kept.any(0).double()
        total += factors.double().log() * counted
        count += counted
    return (total / count.clamp(min=1)).exp().bfloat16()


def searched_column_scale(
    weight: Tensor,
    mask: Tensor | None,
    statistics: InputStatistics,
    *,
    bits: int,
    group_size: int,
    codebook: str = "uniform",
    search_error: SearchError = "l1",
) -> Tensor:
    """A-SINQ's search (huawei-csl/SINQ, `compute_awq_scale`): of 20 column scales mu1 / a_alpha, the one whose rounding
    moves the layer's outputs least.

    With mu1 SINQ's column factor and alpha in {0, 0.05, ..., 0.95},
    a = max(mean |x_j|^alpha, 1e-4) / (mean_i |w_ij|^(1 - alpha) + 1e-4), at least 1e-4, over sqrt(max a * min a). The
    first of equal errors stays.

    Deviations:
        errors from X^T X: with D = W - W_hat, "l2" is sum_i d_i X^T X d_i^T, exactly the original's; "l1" is
            sum_i sqrt(d_i X^T X d_i^T), its mean |D x| where output errors are Gaussian (the original multiplies out).
        masks: means over kept weights; columns that keep none and inputs that were always 0 have a = 1 and are left out
            of the normalization (the original lets them set it).

    Returns:
        bfloat16 [k].
    """
    if statistics.products is None:
        raise ValueError("searched_column_scale: statistics must hold X^T X, got none")
    base = ops.column_scale(weight, mask, method="sinq", group_size=group_size).double()
    activations, weights = statistics.sum_abs / max(statistics.tokens, 1), _mean_magnitudes(weight, mask)
    living = (activations > 0) & (weights > 0)
    alphas = ALPHAS if bool(living.any()) else ()
    scales = [(base / awq_factor(activations, weights, living, alpha)).bfloat16() for alpha in alphas]
    grid = {"bits": bits, "group_size": group_size, "codebook": codebook}
    products = statistics.products.load()
    squares = torch.empty(len(scales), weight.shape[0], dtype=torch.float64, device=weight.device)
    for rows, part, kept in _row_panels(weight, mask):
        target = part.float() if kept is None else torch.where(kept, part, 0.0).float()
        for of_rows, scale in zip(squares, scales, strict=True):
            return_free_memory()  # copies of one size leave holes that the next of that size do not fit into
            rounded = ops.dual_shift_quantize(part, scale, kept, **grid)  # type: ignore[arg-type]
            delta = decode(*rounded, scale, group_size=group_size, codebook=codebook).sub_(target)
            of_rows[rows] = products.quadratic(delta)
    best, lowest = base.bfloat16(), torch.inf
    for scale, of_rows in zip(scales, squares.clamp_(min=0), strict=True):
        error = float((of_rows.sqrt() if search_error == "l1" else of_rows).sum())
        if error < lowest:
            best, lowest = scale, error
    return best


def _row_panels(weight: Tensor, mask: Tensor | None) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
    for begin in range(0, weight.shape[0], _ROWS_AT_A_TIME):
        rows = slice(begin, begin + _ROWS_AT_A_TIME)
        yield rows, weight[rows], None if mask is None else mask[rows]


def _mean_magnitudes(weight: Tensor, mask: Tensor | None) -> Tensor:
    """float64 [k], the mean |w| over the kept entries of each column; 0 where there are none."""
    total = torch.zeros(weight.shape[1], dtype=torch.float64, device=weight.device)
    count = torch.zeros_like(total)
    for _, part, kept in _row_panels(weight, mask):
        magnitudes = part.abs()
        total += (magnitudes if kept is None else torch.where(kept, magnitudes, 0.0)).sum(0, dtype=torch.float64)
        count += len(part) if kept is None else kept.sum(0)
    return total / count.clamp(min=1)


def awq_factor(activations: Tensor, weights: Tensor, living: Tensor, alpha: float) -> Tensor:
    """a_alpha, float64 [k], from mean |x| and mean |w| per column; 1 where not `living`."""
    factor = activations.pow(alpha).clamp(min=_LEAST) / (weights.pow(1 - alpha) + _LEAST)
    factor = factor.clamp(min=_LEAST)
    used = factor[living]
    return torch.where(living, factor / (used.max() * used.min()).sqrt(), 1.0)


def decode(
    codes: Tensor, scale: Tensor, zero: Tensor, column_scale: Tensor, *, group_size: int, codebook: str = "uniform"
) -> Tensor:
    """float32 [n, k] of unpacked codes u8 [n, k], scale bf16 [n, G], zero u8 [n, G] ([n, 0] for a codebook)."""
    steps = codes.float() if codebook == "uniform" else levels(codebook, codes.device)[codes.int()]
    whole = codes.shape[1] // group_size
    parts = [(slice(whole), steps[:, : whole * group_size].unflatten(1, (whole, group_size)))]  # a view
    if whole < scale.shape[1]:
        parts.append((slice(whole, None), steps[:, None, whole * group_size :]))
    for groups, columns in parts:
        if codebook == "uniform":
            columns.sub_(zero[:, groups, None].float())
        columns.mul_(scale[:, groups, None].float())
    return steps.mul_(column_scale.float())
