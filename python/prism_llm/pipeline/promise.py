"""How many zeros a recipe promises, and that a packed weight holds them.

A recipe's sparsity counts in units, each of which loses exactly `share_of(weights, sparsity)` weights (rounded down):

    scope "row"                    every output row, of k weights
    scope "matrix"                 the matrix, of n k weights
    score "sparsegpt"              all rows of each `block_size` columns (the last may have fewer)
    pattern n:m                    every m weights of a row lose m - n; the r < m at its end keep ceil(n r / m)
    scope "global", ratios "owl"   all chosen weights of the model, of which each matrix gets a whole number; by scope
                                   "row" each of its rows loses an equal part, rounded down, or one more

So a row of 3 at 50 % loses 1, and all of it stays at 30 %. Linears that reach visibly less than the sparsity because of
that say so in the report. A packed weight may hold more zeros (of the dense weight, or rounded to 0), never fewer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from prism_kernels.formats import PackedWeight

from ..pruning import Pattern, share_of
from .recipe import Recipe

_ROWS_AT_A_TIME = 32
# Of the weights: what rounding down may lose without a note.
_UNMENTIONED = 0.01


@dataclass(frozen=True)
class _Units:
    """Equal units of a matrix: zeros that they hold (int64, any shape), that each must hold, and weights of each."""

    held: Tensor
    least: int
    size: int
    what: str

    def first_short(self) -> tuple[int, ...] | None:
        short = (self.held < self.least).nonzero()
        return tuple(int(i) for i in short[0]) if len(short) else None


def promised(recipe: Recipe, shape: tuple[int, int], pruned: int | None = None) -> int:
    """The zeros that a recipe promises of a [n, k] matrix, or of one of which it prunes `pruned` weights."""
    if pruned is not None:
        return pruned
    # The units depend on the shape alone.
    everything = torch.zeros(1, 1, dtype=torch.bool).expand(shape)
    return sum(units.least * units.held.numel() for units in _units(everything, recipe, None))


def rounding_note(recipe: Recipe, shape: tuple[int, int]) -> list[str]:
    """What to say where rounding down leaves less than the sparsity."""
    share = promised(recipe, shape) / max(shape[0] * shape[1], 1)
    if recipe.sparsity - share < _UNMENTIONED or 0 in shape:
        return []
    return [f"sparsity {share:.3f} instead of {recipe.sparsity:g}: counts are rounded down ({list(shape)})"]


def require_pruned_as_named(name: str, packed: PackedWeight, recipe: Recipe, pruned: int | None = None) -> None:
    """Raises RuntimeError, naming the unit, where a packed weight decodes to fewer zeros than the recipe promises.

    Args:
        packed: of which the base counts, if it has one: what is added to it has no zeros, and patterns hold in the
            order in which its columns are stored.
        pruned: how many weights of it go, where that is not the recipe's sparsity.
    """
    while isinstance(base := getattr(packed, "base", None), PackedWeight):
        packed = base
    for units in _units(packed.to_dense() == 0, recipe, pruned):
        where = units.first_short()
        if where is not None:
            raise RuntimeError(
                f"{name}: {units.what.format(*where)} of the packed weight must hold the {units.least} zeros of "
                f"{units.size} weights that the recipe names, got {int(units.held[where])}"
            )


def _units(zeros: Tensor, recipe: Recipe, pruned: int | None) -> Iterator[_Units]:
    pattern, (n, k) = Pattern.parse(recipe.pattern), zeros.shape
    if pattern.is_structured:
        m, tail = pattern.m, k % pattern.m
        groups = _count(zeros[:, : k - tail].unflatten(1, (-1, m)))
        yield _Units(groups, m - pattern.n, m, "row {0}, group {1}")
        if tail:
            least = tail - -(-pattern.n * tail // m)
            yield _Units(_count(zeros[:, k - tail :]), least, tail, "the last group of row {0}")
    elif pruned is not None:
        if recipe.scope == "row" and recipe.score != "sparsegpt" and recipe.tiers is None:
            yield _Units(_count(zeros), pruned // max(n, 1), k, "row {0}")
        yield _Units(zeros.count_nonzero(), pruned, n * k, "all")
    elif recipe.score == "sparsegpt":
        for begin in range(0, k, recipe.block_size):
            end = min(begin + recipe.block_size, k)
            size = n * (end - begin)
            part = f"columns {begin} to {end - 1}"
            yield _Units(zeros[:, begin:end].count_nonzero(), share_of(size, recipe.sparsity), size, part)
    elif recipe.scope == "row":
        yield _Units(_count(zeros), share_of(k, recipe.sparsity), k, "row {0}")
    else:
        yield _Units(zeros.count_nonzero(), share_of(n * k, recipe.sparsity), n * k, "all")


def _count(zeros: Tensor) -> Tensor:
    """int64, sums over the last dimension; few rows at a time, because torch sums copies in int64."""
    counts = torch.empty(zeros.shape[:-1], dtype=torch.int64, device=zeros.device)
    for begin in range(0, len(zeros), _ROWS_AT_A_TIME):
        counts[begin : begin + _ROWS_AT_A_TIME] = zeros[begin : begin + _ROWS_AT_A_TIME].sum(-1)
    return counts
