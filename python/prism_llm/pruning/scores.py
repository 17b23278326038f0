"""How much each weight matters: float32 [n, k], larger is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from prism_kernels import ops

from ..memory import return_free_memory

PRISM_ROUNDS = 2
PRISM_EPSILON = 1e-6
CLEARCUT_EPSILON = 1e-8
CLEARCUT_INTERACTION = 0.1

# Scores that divide by sums are computed in float64, this many weights at a time, and rounded once: what is equal by
# its formula is then equal in float32 as well, so ties do not depend on the order of sums or on the device.
_CHUNK_ELEMENTS = 1 << 17


def magnitude_score(weight: Tensor) -> Tensor:
    """|W|."""
    return weight.abs() if weight.dtype == torch.float32 else weight.float().abs_()


def wanda_score(weight: Tensor, norms: Tensor) -> Tensor:
    """|W_ij| * ||X_j||: Wanda (arXiv 2306.11695). Its norm is over tokens divided by sqrt(sequences); a constant factor
    changes no mask.

    Args:
        weight: [n, k].
        norms: float32 [k], L2 norm over tokens of each input.
    """
    return magnitude_score(weight).mul_(norms)


def ria_score(weight: Tensor, norms: Tensor | None = None, exponent: float = 0.5) -> Tensor:
    """(|W_ij| / sum_i |W_ij| + |W_ij| / sum_j |W_ij|) * ||X_j||^a: RIA (Plug-and-Play, ICLR 2024); without norms "RI".

    Deviation, a defect fixed: in a row or column of zeros the term is 0, where the original divides 0 by 0.

    Args:
        weight: [n, k].
        norms: float32 [k], L2 norm over tokens of each input, or None. A constant factor changes no mask.
        exponent: a.
    """
    activation = None if norms is None else norms.double() ** exponent
    return _relative_score(weight, activation, epsilon=0.0, interaction=0.0)


def clearcut_score(weight: Tensor, mean_squares: Tensor, exponent: float = 0.5) -> Tensor:
    """(|W|/(c + e) + |W|/(r + e) + 0.1 W^2/((r + e)(c + e))) * sqrt(x + e)^a: ClearCut, with column and row sums c and
    r of |W|, mean squares x of the inputs, and e = 1e-8.

    The interaction term is at most 0.1 / (n k) times the square of a weight over the mean: masks are almost always
    those of `ria_score` (the source's own float16 rounds the term away).

    Deviation: x is the mean over tokens; the original's is over sequences, which e alone can tell apart.

    Args:
        weight: [n, k].
        mean_squares: float [k], mean over tokens of the square of each input.
        exponent: a.
    """
    activation = (mean_squares.double() + CLEARCUT_EPSILON).sqrt() ** exponent
    return _relative_score(weight, activation, epsilon=CLEARCUT_EPSILON, interaction=CLEARCUT_INTERACTION)


def wanda_variant_score(weight: Tensor, norms: Tensor) -> Tensor:
    """The share of a row's summed Wanda score that the weight and all smaller ones of the row hold: Wanda's variant.

    The original (`--use_variant`) prunes, in every row, the weights whose share is at most alpha, and searches the
    alpha that gives the sparsity. That is a choice over the whole matrix by this score, so `select_mask` with scope
    "matrix" finds the alpha of an exact count. (The search starts at 0.4, stays in [0, 0.8], ends within 0.001 of the
    sparsity, and fails on a row where nothing is below alpha.) Of equal weights the first counts as smaller.

    Args:
        weight: [n, k].
        norms: float32 [k], L2 norm over tokens of each input.
    """
    score = torch.empty_like(weight, dtype=torch.float32)
    for rows in _row_chunks(weight):
        ordered, index = wanda_score(weight[rows], norms).sort(dim=1, stable=True)
        sums = ordered.cumsum(1, dtype=torch.float64)
        total = sums[:, -1:]
        share = torch.where(total > 0, sums / total, 0.0).float()
        score[rows] = torch.empty_like(share).scatter_(1, index, share)
    return score


def _relative_score(weight: Tensor, activation: Tensor | None, *, epsilon: float, interaction: float) -> Tensor:
    """((c_j + r_i) |W| + interaction c_j r_i W^2) * activation_j with the inverse sums c and r of |W|, in float32."""
    row_sums, column_sums = _magnitude_sums(weight)
    row, column = _inverse(row_sums + epsilon)[:, None], _inverse(column_sums + epsilon)
    score = torch.empty_like(weight, dtype=torch.float32)
    for rows in _row_chunks(weight):
        magnitude = weight[rows].double().abs_()
        value = magnitude * (column + row[rows])
        if interaction:
            value += interaction * magnitude.square() * (column * row[rows])
        score[rows] = (value if activation is None else value * activation).float()
    return score


def _magnitude_sums(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of |W| over each row and over each column, float64 [n] and [k]."""
    n, k = weight.shape
    row = torch.zeros(n, dtype=torch.float64, device=weight.device)
    column = torch.zeros(k, dtype=torch.float64, device=weight.device)
    for rows in _row_chunks(weight):
        magnitude = weight[rows].double().abs_()
        row[rows] = magnitude.sum(1)
        column += magnitude.sum(0)
    return row, column


def _inverse(sums: Tensor) -> Tensor:
    """1 / sums, and 0 for what is dead."""
    return torch.where(sums > 0, 1 / sums, 0.0)


def _row_chunks(weight: Tensor) -> list[slice]:
    n, k = weight.shape
    step = max(1, _CHUNK_ELEMENTS // max(k, 1))
    return [slice(begin, min(begin + step, n)) for begin in range(0, n if k else 0, step)]


def prism_mask(
    weight: Tensor,
    norms: Tensor,
    select: Callable[[Tensor], Tensor],
    *,
    factors: Literal["sinq", "prism"] = "sinq",
) -> Tensor:
    """The mask of PRISM (SDMuhsin/PRISM, `sparse_with_prism`): |W_ij| ||X_j|| / (mu1_j mu2_i + 1e-6), found twice.

    Each round takes the Sinkhorn factors mu1 (columns) and mu2 (rows) of the whole matrix as pruned by the round before
    and scores the ORIGINAL weights with them.

    Deviation, a defect fixed: the original fills pruned entries with noise of 1e-8, and a row or column without
    survivors then has a spread of about 0 that pins the target and the imbalance of the whole matrix. Here such rows
    and columns are left out of the statistics and have factor 1. The zeros in all others stay inside the spreads with
    factors="sinq", as in the original.

    Args:
        weight: [n, k].
        norms: float32 [k], L2 norm over tokens of each input.
        select: makes the mask from a score.
        factors: "sinq" (the original: SINQ's iteration, zeros included), or "prism" (row then column, survivors only).
    """
    mask = weight != 0
    for _ in range(PRISM_ROUNDS):
        counted = _living_cross(mask) if factors == "sinq" else mask
        column, row = ops.sinkhorn(weight * mask, counted, variant=factors, iterations=16)
        # The score, twice as large as the weight, fits into no hole of the heap that the copies leave.
        del counted
        return_free_memory()
        mask = select(_balanced_score(weight, norms, column, row))
        return_free_memory()
    return mask


def _balanced_score(weight: Tensor, norms: Tensor, column: Tensor, row: Tensor) -> Tensor:
    """|W_ij| ||X_j|| / (column_j row_i + 1e-6), a few rows at a time."""
    score = torch.empty_like(weight, dtype=torch.float32)
    for rows in _row_chunks(weight):
        score[rows] = wanda_score(weight[rows], norms).div_(row[rows, None] * column + PRISM_EPSILON)
    return score


def _living_cross(mask: Tensor) -> Tensor:
    """True in every entry of the rows and columns that keep anything."""
    return torch.outer(mask.any(1), mask.any(0))
