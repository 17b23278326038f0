"""How much each weight matters: float32 [n, k], larger is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from prism_kernels import ops

PRISM_ROUNDS = 2
PRISM_EPSILON = 1e-6


def magnitude_score(weight: Tensor) -> Tensor:
    """|W|."""
    return weight.float().abs()


def wanda_score(weight: Tensor, norms: Tensor) -> Tensor:
    """|W_ij| * ||X_j||: Wanda (arXiv 2306.11695). Its norm is over tokens divided by sqrt(sequences); a constant factor
    changes no mask.

    Args:
        weight: [n, k].
        norms: float32 [k], L2 norm over tokens of each input.
    """
    return weight.float().abs() * norms


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
    weight = weight.float()
    original = wanda_score(weight, norms)
    mask = weight != 0
    for _ in range(PRISM_ROUNDS):
        counted = _living_cross(mask) if factors == "sinq" else mask
        column, row = ops.sinkhorn(weight * mask, counted, variant=factors, iterations=16)
        mask = select(original / (row[:, None] * column + PRISM_EPSILON))
    return mask


def _living_cross(mask: Tensor) -> Tensor:
    """True in every entry of the rows and columns that keep anything."""
    return torch.outer(mask.any(1), mask.any(0))
