"""Patterns of sparsity, and masks with exact counts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from prism_kernels import ops

Scope = Literal["row", "matrix"]


@dataclass(frozen=True)
class Pattern:
    """Where zeros may lie: anywhere (n = m = 0), or such that of every m consecutive weights of a row n are KEPT.

    "2:4" keeps 2 of 4, "1:4" keeps 1 of 4. (Wanda and RIA count the pruned ones in n; ClearCut the kept ones.)
    """

    n: int = 0
    m: int = 0

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Reads "unstructured" or "n:m" with 1 <= n < m; raises ValueError."""
        if text == "unstructured":
            return cls()
        match = re.fullmatch(r"(\d{1,6}):(\d{1,6})", text)
        if match and 1 <= int(match[1]) < int(match[2]):
            return cls(int(match[1]), int(match[2]))
        raise ValueError(f'Pattern: text must be "unstructured" or "n:m" with 1 <= n < m (n kept of m), got {text!r}')

    @property
    def is_structured(self) -> bool:
        return self.m > 0

    @property
    def sparsity(self) -> float:
        """The fraction that an n:m pattern prunes."""
        if not self.is_structured:
            raise ValueError("Pattern: sparsity must be asked of an n:m pattern, got unstructured")
        return 1 - self.n / self.m


def share_of(total: int, share: float) -> int:
    """How many of `total` weights a share of them is: rounded down, as all sources of the methods do.

    The share is meant as it is written: 0.29 of 100 is 29, though the product of the floats lies just below. So a
    product within the rounding of float64 below a whole number counts as that number.
    """
    return min(total, int(total * share * (1 + 2.0**-51)))


def select_mask(score: Tensor, pattern: Pattern, sparsity: float, scope: Scope, pruned: int | None = None) -> Tensor:
    """The mask (bool [n, k], True = kept) of the largest scores.

    Exactly `share_of(k, sparsity)` weights of every row (scope "row"), or `share_of(n * k, sparsity)` of the matrix,
    are pruned; among equal scores the lower index goes first. An n:m pattern prunes the m - n smallest of every group
    instead; a last group of r < m weights keeps ceil(n r / m).

    Args:
        score: [n, k], float; NaN counts as the smallest.
        sparsity: in [0, 1); not used by an n:m pattern.
        scope: "row" or "matrix"; not used by an n:m pattern.
        pruned: how many to prune instead of `sparsity`. With scope "row" what exceeds a multiple of n is one weight
            more in the rows whose next score is smallest.
    """
    if pattern.is_structured:
        return ops.nm_mask(score, pattern.n, pattern.m)
    n, k = score.shape
    if scope == "matrix":
        return ops.topk_mask(score, n * k - (share_of(n * k, sparsity) if pruned is None else pruned), scope)
    if pruned is None:
        return ops.topk_mask(score, k - share_of(k, sparsity), scope)
    each, more = divmod(pruned, max(n, 1))
    mask = ops.topk_mask(score, k - each, scope)
    if more:
        rest = torch.where(mask, score.nan_to_num(-torch.inf, torch.inf, -torch.inf), torch.inf)
        lowest, column = rest.min(1)
        rows = lowest.argsort(stable=True)[:more]
        mask[rows, column[rows]] = False
    return mask
