"""The stages of a recipe on one weight: score, mask, compensate, scale, round, pack."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from prism_kernels import ops
from prism_kernels.formats import PackedWeight, PermutedWeight, TieredWeight
from prism_kernels.nn import (
    BitmapDualShiftLinear,
    BitmapLinear,
    DualShiftLinear,
    PackedLinear,
    PermutedLinear,
    Sparse24DualShiftLinear,
    Sparse24Linear,
    TieredLinear,
)

from ..calibration import InputStatistics
from ..pruning import (
    HessianSolver,
    Pattern,
    demote,
    expand_tiers,
    map_shape,
    obs_one_shot,
    obs_sweep,
    require_pruned,
)
from ..pruning.compensation import SweepGrid
from ..quantization import pack_pruned, pack_rounded, round_to_nearest
from .recipe import Recipe
from .selection import choose_mask

_MODULES: dict[str, type[PackedLinear]] = {
    module.FORMAT.NAME: module
    for module in (
        BitmapDualShiftLinear,
        BitmapLinear,
        DualShiftLinear,
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
        return 0 if self.mask is None else self.mask.numel() - int(self.mask.sum())

    @property
    def stages(self) -> str:
        """The stages that ran, in order, e.g. "prism > obs_one_shot > prism scale > rtn"."""
        recipe = self.recipe
        stages: list[str] = [recipe.ranking] if recipe.prunes else []
        stages += [f"{recipe.permute} permutation"] if isinstance(self.packed, PermutedWeight) else []
        stages += [] if recipe.tiers is None else ["tiers"]
        stages += [recipe.compensate] if recipe.needs_gram else []
        if recipe.bits is not None:
            stages += [] if recipe.scale == "none" else [f"{recipe.scale} scale"]
            stages.append(recipe.round)
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
    dense = weight.detach().float()
    _require_finite(name, "weight", dense)
    if recipe.tiers is not None:
        return _tier(name, weight.dtype, dense, recipe, statistics, tiers)
    if not recipe.needs_gram:
        mask, index = choose_mask(dense, recipe, statistics, pruned) if recipe.prunes else (None, None)
        return _finish(name, weight.dtype, dense, mask, recipe, index)
    if solver is None:
        raise ValueError(f"compress_weight: solver must be given for {recipe.compensate}, got None ({name})")
    operator = solver.sweep_factor() if recipe.compensate == "obs_sweep" else solver.one_shot_inverse()
    if operator is None:
        plain = _without_compensation(recipe)
        result = compress_weight(name, weight, plain, statistics, pruned=pruned)
        score = "" if plain.score == recipe.score else f", score {plain.score} instead of {recipe.score}"
        result.notes += [*solver.notes, f"fallback: no compensation{score}"]
        return result
    if recipe.compensate == "obs_sweep":
        result = _sweep(name, weight.dtype, dense, recipe, statistics, operator, solver.dead_inputs(), pruned)
    else:
        mask, index = choose_mask(dense, recipe, statistics, pruned)
        result = _finish(name, weight.dtype, obs_one_shot(dense, mask, operator), mask, recipe, index)
    result.notes += solver.notes
    return result


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
    values = dense.to(dtype)
    return CompressedWeight(TieredWeight.pack(values, tiles, mask=mask), mask, recipe)


def _without_compensation(recipe: Recipe) -> Recipe:
    changes: dict[str, object] = {"compensate": "none", "round": "rtn"}
    if recipe.score == "sparsegpt":
        changes |= {"score": "wanda", "scope": "row"}
    return recipe.replace(sparsity=recipe.sparsity, **changes)


def without_calibration(recipe: Recipe) -> Recipe:
    """The recipe for a weight whose inputs nothing is known about: magnitude, and no compensation."""
    changes: dict[str, object] = {"compensate": "none", "round": "rtn"}
    if recipe.prunes:
        changes |= {"score": "magnitude", "ratios": "uniform"}
    return recipe.replace(sparsity=recipe.sparsity, **changes)


def _sweep(
    name: str,
    dtype: torch.dtype,
    dense: Tensor,
    recipe: Recipe,
    statistics: InputStatistics | None,
    factor: Tensor,
    dead: Tensor,
    pruned: int | None,
) -> CompressedWeight:
    living = torch.where(dead, 0.0, dense)
    adaptive = recipe.score == "sparsegpt" or not recipe.prunes
    mask, index = (None, None) if adaptive else choose_mask(dense, recipe, statistics, pruned)
    group_size = recipe.group_size or dense.shape[1]
    grid = None
    if recipe.bits is not None and recipe.round == "joint":
        scale = ops.column_scale(living, mask, method=recipe.scale, group_size=group_size)
        grid = SweepGrid(recipe.bits, recipe.group_size, scale)
    swept = obs_sweep(
        living,
        factor,
        mask=mask,
        pattern=Pattern.parse(recipe.pattern),
        sparsity=recipe.sparsity,
        pruned=pruned,
        block_size=recipe.block_size,
        grid=grid,
    )
    kept = swept.mask if recipe.prunes else None
    if grid is None:
        return _finish(name, dtype, swept.weight, kept, recipe, index)
    _require_finite(name, "compensated weight", swept.weight)
    assert swept.codes is not None and swept.scale is not None and swept.zero is not None
    options = {"bits": grid.bits, "group_size": group_size, "pattern": recipe.pattern}
    codes, stored, scale = swept.codes, kept, grid.column_scale
    if index is not None and kept is not None:  # one grid per row: codes go where their columns go
        codes, stored, scale = codes[:, index], kept[:, index], scale[index]
    packed = pack_rounded(codes, stored, swept.scale, swept.zero, scale, **options)  # type: ignore[arg-type]
    return CompressedWeight(_in_order(packed, index), kept, recipe)


def _finish(
    name: str,
    dtype: torch.dtype,
    values: Tensor,
    mask: Tensor | None,
    recipe: Recipe,
    index: Tensor | None = None,
) -> CompressedWeight:
    """Rounds to nearest, or stores the survivors in `dtype`; with `index`, columns are stored in that order."""
    _require_finite(name, "compensated weight", values)
    if index is not None and mask is not None:
        ordered = _finish(name, dtype, values[:, index], mask[:, index], recipe)
        return CompressedWeight(_in_order(ordered.packed, index), mask, recipe)
    if recipe.bits is None:
        assert mask is not None, "a recipe prunes or quantizes"
        _require_finite(name, f"compensated weight in {dtype}", values.to(dtype))
        return CompressedWeight(pack_pruned(values, mask, dtype, recipe.pattern), mask, recipe)
    group_size = recipe.group_size or values.shape[1]
    scale = ops.column_scale(values, mask, method=recipe.scale, group_size=group_size)
    grid = {"bits": recipe.bits, "group_size": group_size, "codebook": recipe.codebook, "pattern": recipe.pattern}
    packed = round_to_nearest(values, mask, scale, **grid)  # type: ignore[arg-type]
    return CompressedWeight(packed, mask, recipe)


def _in_order(packed: PackedWeight, index: Tensor | None) -> PackedWeight:
    return packed if index is None else PermutedWeight(index.to(torch.int32), packed)


def _require_finite(name: str, what: str, values: Tensor) -> None:
    finite = values.isfinite()
    if not bool(finite.all()):
        row, column = (int(i) for i in (~finite).nonzero()[0])
        raise ValueError(f"{name}: {what} must be finite, got {values[row, column].item()} at [{row}, {column}]")
