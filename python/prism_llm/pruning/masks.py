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


def select_mask(score: Tensor, pattern: Pattern, sparsity: float, scope: Scope, pruned: int | None = None) -> Tensor:
    """The mask (bool [n, k], True = kept) of the largest scores.

    Exactly int(k * sparsity) weights of every row (scope "row"), or int(n * k * sparsity) of the matrix, are pruned;
    among equal scores the lower index goes first. An n:m pattern prunes the m - n smallest of every group instead; a
    last group of r < m weights keeps ceil(n r / m).

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
        return ops.topk_mask(score, n * k - (int(n * k * sparsity) if pruned is None else pruned), scope)
    if pruned is None:
        return ops.topk_mask(score, k - int(k * sparsity), scope)
    each, more = divmod(pruned, max(n, 1))
    mask = ops.topk_mask(score, k - each, scope)
    if more:
        rest = torch.where(mask, score.nan_to_num(-torch.inf, torch.inf, -torch.inf), torch.inf)
        lowest, column = rest.min(1)
        rows = lowest.argsort(stable=True)[:more]
        mask[rows, column[rows]] = False
    return mask


def pruned_by(shape: tuple[int, int], pattern: Pattern, sparsity: float, scope: Scope) -> int:
    """How many weights of a [n, k] matrix `select_mask` prunes."""
    n, k = shape
    if pattern.is_structured:
        whole, rest = divmod(k, pattern.m)
        return n * (whole * (pattern.m - pattern.n) + rest - -(-pattern.n * rest // pattern.m))
    return n * int(k * sparsity) if scope == "row" else int(n * k * sparsity)
