"""Which weights of one matrix a recipe keeps, and in which order of its inputs."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ..calibration import InputStatistics
from ..pruning import (
    FindOrder,
    Pattern,
    clearcut_score,
    find_permutation,
    magnitude_score,
    permuted_mask,
    prism_mask,
    ria_score,
    select_mask,
    wanda_score,
    wanda_variant_score,
)
from .recipe import DATA_FREE_SCORES, Recipe


class Selection(NamedTuple):
    """mask: bool [n, k], True = kept, in the order of the weight. order: int64 [k], the order of the columns in which
    the mask has its n:m pattern; None = as they are."""

    mask: Tensor
    order: Tensor | None = None


def choose_mask(
    dense: Tensor,
    recipe: Recipe,
    statistics: InputStatistics | None,
    pruned: int | None = None,
    find: FindOrder | None = None,
) -> Selection:
    """What to keep of `dense` (float32 [n, k]) by the recipe's score, pattern and permutation.

    Args:
        statistics: of the inputs; None for a data-free score.
        pruned: how many weights to prune, where the recipe's ratios are not uniform.
        find: the search for an order, where not every order will do.

    Raises:
        ValueError: statistics are missing.
    """
    pattern = Pattern.parse(recipe.pattern)
    if recipe.scope == "global" and pruned is None:
        raise ValueError("compress_weight: pruned must be given for scope global, got None")
    index: Tensor | None = None

    def select(score: Tensor) -> Tensor:
        nonlocal index
        if recipe.permute == "none":
            return select_mask(score, pattern, recipe.sparsity, "row" if recipe.scope == "row" else "matrix", pruned)
        index = find_permutation(score, pattern, recipe.permute) if find is None else find(score)
        return permuted_mask(score, pattern, index)

    if recipe.score in ("prism", "prism_masked"):
        norms = _known(recipe, statistics).norms
        mask = prism_mask(dense, norms, select, factors="sinq" if recipe.score == "prism" else "prism")
    else:
        mask = select(fixed_score(dense, recipe, statistics))
    return Selection(mask, index)


def fixed_score(dense: Tensor, recipe: Recipe, statistics: InputStatistics | None) -> Tensor:
    """The score (float32 [n, k]) of a recipe whose score does not depend on the mask."""
    score, exponent = recipe.score, recipe.ria_exponent
    if score == "magnitude":
        return magnitude_score(dense)
    if score == "ri":
        return ria_score(dense)
    known = _known(recipe, statistics)
    if score == "ria":
        return ria_score(dense, known.norms, exponent)
    if score == "clearcut":
        return clearcut_score(dense, known.sum_squares / max(known.tokens, 1), exponent)
    if score == "wanda_variant":
        return wanda_variant_score(dense, known.norms)
    if score == "wanda":
        return wanda_score(dense, known.norms)
    raise ValueError(f"fixed_score: score must be known before the mask is, got {score}")


def _known(recipe: Recipe, statistics: InputStatistics | None) -> InputStatistics:
    if statistics is None:
        wanted = f"must be given for score {recipe.score} (data-free: {', '.join(DATA_FREE_SCORES)})"
        raise ValueError(f"compress_weight: statistics {wanted}, got None")
    return statistics
