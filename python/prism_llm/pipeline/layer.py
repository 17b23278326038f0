"""The stages of a recipe on one weight: score, mask, compensate, scale, round, pack."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from prism_kernels.formats import LowRankWeight, PackedWeight, PermutedWeight, TieredWeight
from prism_kernels.nn import (
    BitmapDualShiftLinear,
    BitmapLinear,
    DualShiftLinear,
    LowRankLinear,
    PackedLinear,
    PermutedLinear,
    Sparse24DualShiftLinear,
    Sparse24Linear,
    TieredLinear,
)

from ..calibration import InputStatistics, UpperPanels
from ..memory import return_free_memory
from ..pruning import (
    HessianSolver,
    Pattern,
    SweepResult,
    demote,
    enough_tokens,
    expand_tiers,
    least_squares,
    map_shape,
    obs_one_shot,
    obs_sweep,
    require_pruned,
)
from ..pruning.compensation import SweepGrid
from ..pruning.least_squares import LEAST_TOKENS_PER_INPUT
from ..quantization import find_column_scale, pack_pruned, pack_rounded, refine_zeros, round_to_nearest
from .recipe import Recipe
from .selection import Selection, choose_mask

_READ_BY_OPS = (torch.float32, torch.float16, torch.bfloat16)
_MODULES: dict[str, type[PackedLinear]] = {
    module.FORMAT.NAME: module
    for module in (
        BitmapDualShiftLinear,
        BitmapLinear,
        DualShiftLinear,
        LowRankLinear,
        PermutedLinear,
        Sparse24DualShiftLinear,
        Sparse24Linear,
        TieredLinear,
    )
}


@dataclass
class CompressedWeight:
    """A packed weight and how it came about.

    Attributes:
        packed: the weight in its storage format.
        mask: bool [n, k], True = kept; None where nothing was pruned.
        recipe: what was done, which is less than what was asked where compensation failed.
        notes: dampings beyond the first, and fallbacks.
    """

    packed: PackedWeight
    mask: Tensor | None
    recipe: Recipe
    notes: list[str] = field(default_factory=list)

    @property
    def pruned(self) -> int:
        """How many weights were pruned."""
        return 0 if self.mask is None else self.mask.numel() - int(self.mask.count_nonzero())

    @property
    def stages(self) -> str:
        """The stages that ran, in order, e.g. "prism > obs_one_shot > prism scale > rtn"."""
        recipe = self.recipe
        stages: list[str] = [recipe.ranking] if recipe.prunes else []
        stages += [f"{recipe.permute} permutation"] if isinstance(self.packed, PermutedWeight) else []
        stages += [] if recipe.tiers is None else ["tiers"]
        stages += [recipe.compensate] if recipe.compensates else []
        if recipe.bits is not None:
            stages += [] if recipe.scale == "none" else [f"{recipe.scale} scale"]
            stages.append(recipe.round)
        if isinstance(self.packed, LowRankWeight):
            weighting = "" if recipe.low_rank_weighting == "none" else f"{recipe.low_rank_weighting} "
            stages.append(f"{weighting}svd of the {recipe.low_rank_of}, rank {self.packed.rank}")
        return " > ".join(stages)

    def module(self, bias: Tensor | None) -> PackedLinear:
        """The drop-in for the linear."""
        return _MODULES[self.packed.NAME](self.packed, bias)


@torch.no_grad()
def compress_weight(
    name: str,
    weight: Tensor,
    recipe: Recipe,
    statistics: InputStatistics | None = None,
    solver: HessianSolver | None = None,
    tiers: Tensor | None = None,
    pruned: int | None = None,
) -> CompressedWeight:
    """Compresses one weight [n, k] of any float dtype; all arithmetic is in float32.

    Args:
        name: for errors.
        recipe: what to do.
        statistics: of its inputs; None for a data-free recipe.
        solver: over the same statistics; None where the recipe needs no X^T X. If it has no inverse, the weight is
            compressed without compensation, and the result's recipe and notes say so.
        tiers: where a three-tier weight stands, u8 of its blocks; None = all dense.
        pruned: how many weights to prune, where the recipe's ratios are not uniform.

    Raises:
        ValueError: the weight, or what compensation made of it, is not finite.
    """
    dense = weight.detach() if weight.dtype in _READ_BY_OPS else weight.detach().float()
    require_finite(name, "weight", dense)
    if recipe.tiers is not None:
        return _tier(name, weight.dtype, dense, recipe, statistics, tiers)
    if not recipe.compensates:  # stages read the weight as it lies: a copy in float32 is twice as large
        chosen = choose_mask(dense, recipe, statistics, pruned) if recipe.prunes else None
        return _finish(name, weight.dtype, dense, chosen, recipe, statistics)
    if solver is None or statistics is None:
        raise ValueError(f"compress_weight: solver must be given for {recipe.compensate}, got None ({name})")
    if recipe.compensate == "least_squares" and not enough_tokens(statistics.tokens, dense.shape[1]):
        swept = recipe.replace(sparsity=recipe.sparsity, compensate="obs_sweep")
        result = compress_weight(name, weight, swept, statistics, solver, pruned=pruned)
        few = f"{statistics.tokens} calibration tokens are fewer than {LEAST_TOKENS_PER_INPUT} per input"
        result.notes.append(f"fallback: obs_sweep instead of least_squares, {few}")
        return result
    return _compensate(name, weight, dense, recipe, statistics, solver, pruned)


def _compensate(
    name: str,
    weight: Tensor,
    dense: Tensor,
    recipe: Recipe,
    statistics: InputStatistics,
    solver: HessianSolver,
    pruned: int | None,
) -> CompressedWeight:
    """`compress_weight` of a recipe that updates kept weights; `dense` is `weight` in a dtype that ops read."""
    # The mask comes first, unless the sweep finds it: scores in float32 and the operator are never in memory together.
    adapts = recipe.compensate != "obs_one_shot" and (recipe.score == "sparsegpt" or not recipe.prunes)
    chosen = None if adapts else choose_mask(dense, recipe, statistics, pruned)
    if _solves_only(recipe):  # no factorization, so nothing that can fail
        return _solve(name, weight.dtype, _living(dense, solver), recipe, statistics, solver, None, chosen, pruned)
    return_free_memory()
    operator = solver.one_shot_inverse() if recipe.compensate == "obs_one_shot" else solver.sweep_factor()
    if operator is None:
        plain = _without_compensation(recipe)
        result = compress_weight(name, weight, plain, statistics, pruned=pruned)
        score = "" if plain.score == recipe.score else f", score {plain.score} instead of {recipe.score}"
        result.notes += [*solver.notes, f"fallback: no compensation{score}"]
        return result
    # Each stage leaves holes in the heap that the next does not fit into.
    return_free_memory()
    if recipe.compensate == "obs_one_shot":
        assert chosen is not None, "only a sweep finds its mask itself"
        values = obs_one_shot(dense, chosen.mask, operator)
        del operator  # of which this may be the last reference
        return_free_memory()
        result = _finish(name, weight.dtype, values, chosen, recipe, statistics)
    elif recipe.compensate == "least_squares" and recipe.prunes:
        living = _living(dense, solver)
        result = _solve(name, weight.dtype, living, recipe, statistics, solver, operator, chosen, pruned)
    else:
        swept, grid = _sweep(_living(dense, solver), recipe, statistics, operator, chosen, pruned)
        del operator
        return_free_memory()
        result = _finish_swept(name, weight.dtype, swept, grid, chosen, recipe, statistics)
    result.notes += solver.notes
    return result


def _living(dense: Tensor, solver: HessianSolver) -> Tensor:
    """float32 [n, k] in memory of its own, with zeros in the columns of dead inputs."""
    return dense.to(torch.float32, copy=True).masked_fill_(solver.dead_inputs(), 0.0)


def _tier(
    name: str,
    dtype: torch.dtype,
    dense: Tensor,
    recipe: Recipe,
    statistics: InputStatistics | None,
    tiers: Tensor | None,
) -> CompressedWeight:
    """One step of three-tier pruning, from the map `tiers` (None = all dense) to the recipe's shares."""
    assert recipe.tiers is not None
    if recipe.score != "magnitude" and statistics is None:
        raise ValueError(f"compress_weight: statistics must be given for score {recipe.score}, got None")
    options = {"block_size": recipe.tier_block_size, "top_k": recipe.topk_per_block}
    if tiers is None:
        shape = map_shape(dense.shape, recipe.tier_block_size)
        tiers = torch.zeros(shape, dtype=torch.uint8, device=dense.device)
    else:
        require_pruned(name, dense, tiers, **options)
    norms = None if recipe.score == "magnitude" or statistics is None else statistics.norms
    tiers, mask = demote(dense, norms, tiers, recipe.tiers, **options)
    tiles = expand_tiers(tiers, dense.shape, recipe.tier_block_size)
    return_free_memory()
    packed = TieredWeight.pack(dense.to(dtype), tiles, mask=mask)
    return_free_memory()
    return CompressedWeight(packed, mask, recipe)


def _without_compensation(recipe: Recipe) -> Recipe:
    changes: dict[str, object] = {"compensate": "none", "round": "rtn" if recipe.round == "joint" else recipe.round}
    if recipe.score == "sparsegpt":
        changes |= {"score": "wanda", "scope": "row"}
    return recipe.replace(sparsity=recipe.sparsity, **changes)


def without_calibration(recipe: Recipe) -> Recipe:
    """The recipe for a weight whose inputs nothing is known about: magnitude, no compensation, no search of scales."""
    changes: dict[str, object] = {"compensate": "none", "round": "rtn" if recipe.round == "joint" else recipe.round}
    changes |= {"scale": "sinq"} if recipe.scale == "asinq" else {}
    changes |= {"low_rank_weighting": "none"}
    if recipe.prunes:
        changes |= {"score": "magnitude", "ratios": "uniform"}
    return recipe.replace(sparsity=recipe.sparsity, **changes)


def _solve(
    name: str,
    dtype: torch.dtype,
    living: Tensor,
    recipe: Recipe,
    statistics: InputStatistics,
    solver: HessianSolver,
    factor: UpperPanels | None,
    chosen: Selection | None,
    pruned: int | None,
) -> CompressedWeight:
    """Exact least squares on the mask (that of an adaptive sweep where the score asks for one), then rounding.

    `factor`, of the sweep, is not needed where `_solves_only`."""
    if chosen is None:
        assert factor is not None
        chosen = Selection(_swept(living, factor, recipe, None, pruned).mask)
    solved = least_squares(living, chosen.mask, solver.damped_hessian())
    if recipe.bits is not None and recipe.round == "joint":
        assert factor is not None
        swept, grid = _sweep(solved.weight, recipe, statistics, factor, chosen, pruned)
        result = _finish_swept(name, dtype, swept, grid, chosen, recipe, statistics)
    else:
        result = _finish(name, dtype, solved.weight, chosen, recipe, statistics)
    state = "residual" if solved.converged else "not converged, residual"
    result.notes.append(f"least_squares: {state} {solved.residual:.1e} after {solved.iterations} products")
    return result


def _solves_only(recipe: Recipe) -> bool:
    """Whether least squares runs without a sweep for its mask before it or for rounding after it."""
    swept = recipe.score == "sparsegpt" or (recipe.bits is not None and recipe.round == "joint")
    return recipe.compensate == "least_squares" and recipe.prunes and not swept


def _sweep(
    living: Tensor,
    recipe: Recipe,
    statistics: InputStatistics,
    factor: UpperPanels,
    chosen: Selection | None,
    pruned: int | None,
) -> tuple[SweepResult, SweepGrid | None]:
    """The sweep over `living`, whose dead inputs have no weights, on a chosen mask or (None) finding it; and what it
    rounded to.

    It takes the place of `living`."""
    mask = None if chosen is None else chosen.mask
    grid = None
    if recipe.bits is not None and recipe.round == "joint":
        grid = SweepGrid(recipe.bits, recipe.group_size, _column_scale(living, mask, recipe, statistics))
    return _swept(living, factor, recipe, mask, pruned, grid, overwrite=True), grid


def _finish_swept(
    name: str,
    dtype: torch.dtype,
    swept: SweepResult,
    grid: SweepGrid | None,
    chosen: Selection | None,
    recipe: Recipe,
    statistics: InputStatistics,
) -> CompressedWeight:
    """`_finish` of what was swept, which is rounded already where there is a grid."""
    order = None if chosen is None else chosen.order
    kept = swept.mask if recipe.prunes else None
    if grid is None:
        return _finish(name, dtype, swept.weight, Selection(swept.mask, order), recipe, statistics)
    require_finite(name, "compensated weight", swept.weight)
    assert swept.codes is not None and swept.scale is not None and swept.zero is not None
    options = {"bits": grid.bits, "group_size": recipe.group_size or swept.weight.shape[1], "pattern": recipe.pattern}
    codes, stored, scale = swept.codes, kept, grid.column_scale
    if order is not None and kept is not None:  # one grid per row: codes go where their columns go
        codes, stored, scale = codes[:, order], kept[:, order], scale[order]
    packed = pack_rounded(codes, stored, swept.scale, swept.zero, scale, **options)  # type: ignore[arg-type]
    return CompressedWeight(_in_order(packed, order), kept, recipe)


def _swept(
    living: Tensor,
    factor: UpperPanels,
    recipe: Recipe,
    mask: Tensor | None,
    pruned: int | None,
    grid: SweepGrid | None = None,
    overwrite: bool = False,
) -> SweepResult:
    return obs_sweep(
        living,
        factor,
        mask=mask,
        pattern=Pattern.parse(recipe.pattern),
        sparsity=recipe.sparsity,
        pruned=pruned,
        block_size=recipe.block_size,
        grid=grid,
        overwrite=overwrite,
    )


def _finish(
    name: str,
    dtype: torch.dtype,
    values: Tensor,
    chosen: Selection | None,
    recipe: Recipe,
    statistics: InputStatistics | None,
) -> CompressedWeight:
    """Rounds to nearest, or stores the survivors in `dtype`; columns are stored in the chosen order."""
    mask, order = (None, None) if chosen is None else chosen
    require_finite(name, "compensated weight", values)
    if order is not None and mask is not None:
        # Only the search of scales reads statistics from here on; X^T X in another order is as large again.
        known = None if statistics is None or recipe.scale != "asinq" else statistics.permuted(order)
        ordered = _finish(name, dtype, values[:, order], Selection(mask[:, order]), recipe, known)
        return CompressedWeight(_in_order(ordered.packed, order), mask, recipe)
    if recipe.bits is None:
        assert mask is not None, "a recipe prunes or quantizes"
        values = values.to(dtype)
        require_finite(name, f"compensated weight in {dtype}", values)
        return CompressedWeight(pack_pruned(values, mask, dtype, recipe.pattern), mask, recipe)
    group_size = recipe.group_size or values.shape[1]
    scale = _column_scale(values, mask, recipe, statistics)
    if recipe.round == "hqq":
        codes, groups, zero = refine_zeros(values, scale, mask, bits=recipe.bits, group_size=group_size)
        options = {"bits": recipe.bits, "group_size": group_size, "pattern": recipe.pattern}
        packed = pack_rounded(codes, mask, groups, zero, scale, **options)  # type: ignore[arg-type]
    else:
        grid = {"bits": recipe.bits, "group_size": group_size, "codebook": recipe.codebook, "pattern": recipe.pattern}
        packed = round_to_nearest(values, mask, scale, **grid)  # type: ignore[arg-type]
    return CompressedWeight(packed, mask, recipe)


def _column_scale(values: Tensor, mask: Tensor | None, recipe: Recipe, statistics: InputStatistics | None) -> Tensor:
    assert recipe.bits is not None
    return find_column_scale(
        values,
        mask,
        method=recipe.scale,
        bits=recipe.bits,
        group_size=recipe.group_size or values.shape[1],
        codebook=recipe.codebook,
        statistics=statistics,
        search_error=recipe.search_error,
    )


def _in_order(packed: PackedWeight, index: Tensor | None) -> PackedWeight:
    return packed if index is None else PermutedWeight(index.to(torch.int32), packed)


def require_finite(name: str, what: str, values: Tensor) -> None:
    # Minimum and maximum are NaN where a value is, and need no copies as `isfinite` does.
    if values.numel() and not bool(torch.stack(torch.aminmax(values)).isfinite().all()):
        row, column = (int(i) for i in (~values.isfinite()).nonzero()[0])
        raise ValueError(f"{name}: {what} must be finite, got {values[row, column].item()} at [{row}, {column}]")
