"""One block of columns, left to right: prune, round, and move each column's error into the columns to its right."""

import torch

from .grid import find_grid, round_to_grid
from .nm_mask import nm_mask


def obs_sweep(weight, factor, mask, n_keep, m, column_scale, scale, zero, bits, group_size):
    """weight [n, b], factor [b, b] (upper Cholesky of H^-1) -> (compensated, error, mask, codes, scale, zero)."""
    n, b = weight.shape
    groups = -(-b // group_size) if bits else 0
    find_mask, find_grids = mask is None and m > 0, scale is None
    compensated, error = weight.clone(), torch.zeros_like(weight)
    mask = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask.clone()
    codes = torch.zeros(n, b if bits else 0, dtype=torch.uint8, device=weight.device)
    scale = weight.new_ones(n, groups, dtype=torch.bfloat16) if find_grids else scale.clone()
    zero = weight.new_zeros(n, groups, dtype=torch.uint8) if find_grids else zero.clone()
    column = weight.new_ones(b) if column_scale is None else column_scale.float()
    for j in range(b):
        if find_mask and j % m == 0:
            ahead = slice(j, j + m)
            mask[:, ahead] = nm_mask(compensated[:, ahead].square() / factor.diagonal()[ahead].square(), n_keep, m)
        value = compensated[:, j].clone()
        result = value
        if bits:
            g, group = j // group_size, slice(j, j + group_size)
            if find_grids and j % group_size == 0:
                scale[:, g], zero[:, g] = find_grid(compensated[:, group] / column[group], mask[:, group], bits)
            code = round_to_grid((value / column[j])[:, None], scale[:, g], zero[:, g], bits)[:, 0]
            codes[:, j] = torch.where(mask[:, j], code, zero[:, g])
            result = (code.float() - zero[:, g].float()) * scale[:, g].float() * column[j]
        compensated[:, j] = torch.where(mask[:, j], result, 0.0)
        error[:, j] = (value - compensated[:, j]) / factor[j, j]
        compensated[:, j + 1 :] -= error[:, j, None] * factor[j, j + 1 :]
    return compensated, error, mask, codes, scale, zero
