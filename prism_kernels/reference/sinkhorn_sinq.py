"""The "sinq" iteration of `sinkhorn`: columns and rows at once, damped, the best iterate kept."""

import torch

from .sinkhorn_statistics import live, std


def sinq(weight: torch.Tensor, mask: torch.Tensor, iterations: int):
    """weight [n, k], mask bool -> (column_factor [k], row_factor [n]). Lines without two different entries keep 1."""
    factors = best = (weight.new_ones(weight.shape[1]), weight.new_ones(weight.shape[0]))
    alive = torch.cat([live(weight, mask, dim) for dim in (0, 1)])
    lowest, target = torch.tensor(torch.inf), None
    for _ in range(iterations if alive.any() else 0):
        spread = torch.cat([std(weight / factors[0] / factors[1][:, None], mask, dim, 1) for dim in (0, 1)])
        if target is None:  # the smallest spread of the input: everything is divided down to it
            target = (spread[alive].min().clamp(1e-3, 1e3) + 1e-6).clamp(1e-3, 1e3)
        imbalance = spread[alive].max() / spread[alive].min().clamp(min=1e-12)
        if imbalance > lowest:
            break
        lowest, best = imbalance, factors
        step = (spread.clamp(1e-3, 1e3) / target).clamp(0.7, 2.0)
        moved = (torch.cat(factors) * step).log().clamp(-0.3, 10).exp()
        factors = torch.where(alive, moved, 1.0).split(weight.shape[::-1])
    return best
