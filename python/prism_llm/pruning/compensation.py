"""Updates of the kept weights that undo part of the error of pruning and rounding (optimal brain surgeon)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prism_kernels import ops

from ..calibration import UpperPanels
from ..memory import return_free_memory
from .masks import Pattern, share_of

# Rows are independent: copies in float32 stay small beside a block, and products are large enough to be efficient.
_ROWS_AT_A_TIME = 128


def obs_one_shot(weight: Tensor, mask: Tensor, inverse: Tensor | UpperPanels) -> Tensor:
    """PRISM's one-shot update: the sum over pruned weights of their single-weight OBS corrections.

    Per row, w <- m * (w - H^-1 (w_pruned / diag(H^-1))), for all rows by one matrix product. The interaction of pruned
    weights is ignored, as in the original.

    Args:
        weight: [n, k], any float dtype that float32 holds.
        mask: bool [n, k], True = kept.
        inverse: float32 [k, k], H^-1, of which the upper triangle is read.

    Returns:
        float32 [n, k], exactly 0 where pruned.
    """
    inverse = UpperPanels.of(inverse) if isinstance(inverse, Tensor) else inverse
    result = torch.empty_like(weight, dtype=inverse.dtype)
    diagonal = inverse.diagonal()
    for begin in range(0, weight.shape[0], _ROWS_AT_A_TIME):
        rows = slice(begin, begin + _ROWS_AT_A_TIME)
        kept, part = mask[rows], weight[rows].to(inverse.dtype)
        pruned = torch.where(kept, 0.0, part).div_(diagonal)
        result[rows] = torch.where(kept, part - inverse.times(pruned), 0.0)
    return result


@dataclass(frozen=True)
class SweepResult:
    """Of `obs_sweep`: weight float32 [n, k], exact values as stored; mask bool [n, k]; with rounding codes u8 [n, k],
    scale bf16 [n, G] and zero u8 [n, G], else None."""

    weight: Tensor
    mask: Tensor
    codes: Tensor | None = None
    scale: Tensor | None = None
    zero: Tensor | None = None


@dataclass(frozen=True)
class SweepGrid:
    """Rounding inside the sweep. One grid per row, found on the dense weight, if `group_size` is None (the original);
    else grids per group, found on the current weights when the sweep reaches the group."""

    bits: int
    group_size: int | None
    column_scale: Tensor


def obs_sweep(
    weight: Tensor,
    factor: Tensor | UpperPanels,
    *,
    mask: Tensor | None = None,
    pattern: Pattern | None = None,
    sparsity: float = 0.0,
    pruned: int | None = None,
    block_size: int = 128,
    grid: SweepGrid | None = None,
    overwrite: bool = False,
) -> SweepResult:
    """SparseGPT's sweep (arXiv 2301.00774) over all columns, `block_size` at a time.

    With `mask`, it is kept. Without, the mask adapts to the updated weights: for each block the `share_of(numel,
    sparsity)` smallest w^2 / U_jj^2 go, so sparsity is even across blocks and free across rows (the original prunes one
    more per block: every score up to and including the threshold); for n:m, the m - n smallest of each group when the
    sweep reaches it.

    Args:
        weight: float32 [n, k], with zeros in the columns of dead inputs.
        factor: float32 [k, k], upper Cholesky factor of H^-1.
        mask: bool [n, k], True = kept.
        pattern, sparsity: what to prune where no mask is given.
        pruned: how many weights to prune instead of `sparsity`, spread evenly over the blocks.
        block_size: columns; a multiple of m, and of the group size of `grid`.
        grid: rounding inside the sweep, or None.
        overwrite: `weight` may be overwritten, by the result.
    """
    pattern = pattern or Pattern()
    factor = UpperPanels.of(factor) if isinstance(factor, Tensor) else factor
    weight, (n, k) = weight if overwrite else weight.clone(), weight.shape
    row_grid = _row_grid(weight, grid) if grid is not None and grid.group_size is None else None
    kept = torch.ones(n, k, dtype=torch.bool, device=weight.device)
    codes = None if grid is None else torch.empty(n, k, dtype=torch.uint8, device=weight.device)
    scales, zeros = [], []
    for begin in range(0, k, block_size):
        return_free_memory()  # copies of one size leave holes that the next of that size do not fit into
        end = min(begin + block_size, k)
        rows = factor.strip(begin, end)
        block, own = weight[:, begin:end].contiguous(), rows[:, : end - begin].triu()
        chosen = None if mask is None else mask[:, begin:end].contiguous()
        if chosen is None and not pattern.is_structured:
            score = block.square() / own.diagonal().square()
            count = share_of(block.numel(), sparsity) if pruned is None else pruned * end // k - pruned * begin // k
            chosen = ops.topk_mask(score, block.numel() - count, "matrix")
        rounding = _rounding(grid, row_grid, begin, end)
        # What is swept is not read again: results take its place.
        weight[:, begin:end], error, kept[:, begin:end], code, scale, zero = ops.obs_sweep(
            block, own, chosen, pattern.n, pattern.m, **rounding
        )
        weight[:, end:].addmm_(error, rows[:, end - begin :], alpha=-1)
        if codes is not None:
            codes[:, begin:end] = code
        scales.append(scale)
        zeros.append(zero)
    if grid is None:
        return SweepResult(weight, kept)
    all_scales, all_zeros = row_grid or (torch.cat(scales, 1), torch.cat(zeros, 1))
    return SweepResult(weight, kept, codes, all_scales, all_zeros)


def _row_grid(weight: Tensor, grid: SweepGrid) -> tuple[Tensor, Tensor]:
    k = weight.shape[1]
    _, scale, zero = ops.dual_shift_quantize(weight, grid.column_scale, bits=grid.bits, group_size=max(k, 1))
    return scale, zero


def _rounding(grid: SweepGrid | None, row_grid: tuple[Tensor, Tensor] | None, begin: int, end: int) -> dict:
    if grid is None:
        return {}
    column_scale = grid.column_scale[begin:end].contiguous()
    if row_grid is not None:
        scale, zero = row_grid
        found = {"scale": scale, "zero": zero, "group_size": end - begin}
    else:
        found = {"group_size": grid.group_size}
    return {"column_scale": column_scale, "bits": grid.bits, **found}
