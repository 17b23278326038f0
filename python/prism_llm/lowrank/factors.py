"""Truncated singular value decompositions, plain or in the metric of a layer's outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..memory import return_free_memory
from .kmif import kmif_rank

#: A rank; a share of the smaller side; or "kmif".
Rank = int | float | Literal["kmif"]


@dataclass(frozen=True)
class Factors:
    """b @ a of rank r: a [r, k] and b [n, r], each with the square roots of the singular values."""

    a: Tensor
    b: Tensor

    @property
    def rank(self) -> int:
        return self.a.shape[0]


def factorize(weight: Tensor, rank: Rank, factor: Tensor | None = None) -> Factors:
    """The factors of rank r that are nearest to `weight`: in the Frobenius norm, or as a layer's outputs see it.

    With the lower Cholesky factor L of H = X^T X (damped), ||X D^T|| = ||D L||: the truncated decomposition
    U_r S_r V_r^T of W L gives the minimizer b a = U_r S_r V_r^T L^-1 (Eckart and Young in the metric of H).

    Args:
        weight: float32 or float64 [n, k], finite.
        rank: r, at least 1; a float in (0, 1] means max(1, int(min(n, k) * rank)) as ClearCut's `rank_ratio`; "kmif"
            means `kmif_rank` of the singular values. Never more than min(n, k).
        factor: L, same dtype, [k, k], lower triangular with a positive diagonal; None weighs all inputs alike.

    Raises:
        ValueError: the rank or a shape does not fit.
    """
    n, k = weight.shape
    _check_rank(rank)
    if factor is not None and factor.shape != (k, k):
        raise ValueError(f"factorize: factor must be [{k}, {k}], got {list(factor.shape)}")
    left, values, right = torch.linalg.svd(weight if factor is None else weight @ factor, full_matrices=False)
    return_free_memory()  # of the workspace, larger than the result
    if rank == "kmif":
        wanted = kmif_rank(values, n, k)
    else:
        wanted = max(1, int(min(n, k) * rank)) if isinstance(rank, float) else int(rank)
    r = min(wanted, n, k)
    half = values[:r].sqrt()
    # The decomposition is column by column; products of its parts would be so too, and their contiguous forms copies.
    a = torch.mul(half[:, None], right[:r], out=weight.new_empty(r, k))
    del right
    b = torch.mul(left[:, :r], half, out=weight.new_empty(n, r))
    del left
    if factor is not None:
        a = torch.linalg.solve_triangular(factor, a, upper=False, left=False).contiguous()
    return Factors(a, b)


def break_even_rank(n: int, k: int) -> float:
    """The rank at which the factors hold as many numbers as the matrix [n, k]."""
    return n * k / max(n + k, 1)


def _check_rank(rank: Rank) -> None:
    if isinstance(rank, str):
        fits = rank == "kmif"
    elif isinstance(rank, float):
        fits = 0 < rank <= 1
    else:
        fits = isinstance(rank, int) and not isinstance(rank, bool) and rank >= 1
    if not fits:
        raise ValueError(f'factorize: rank must be an integer >= 1, a share in (0, 1] or "kmif", got {rank!r}')
