"""Column and row factors that even out the spread of a matrix, over its kept entries: "sinq", "prism" and "rms"."""

import torch

from .sinkhorn_sinq import sinq
from .sinkhorn_statistics import std


def sinkhorn(weight: torch.Tensor, mask: torch.Tensor | None, variant: str, iterations: int):
    """weight [b, n, k], mask bool (None = all kept) -> (column_factor [b, k], row_factor [b, n])."""
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    b, n, k = weight.shape
    mask = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask
    column, row = weight.new_ones(b, k), weight.new_ones(b, n)
    factors = {"sinq": sinq, "prism": prism, "rms": rms}[variant]
    for i in range(b if n * k else 0):
        column[i], row[i] = factors(weight[i], mask[i], iterations)
    return column, row


def prism(weight: torch.Tensor, mask: torch.Tensor, iterations: int):
    """Rows, then columns, divided by their population std, again and again."""
    factors = [weight.new_ones(weight.shape[1]), weight.new_ones(weight.shape[0])]
    for dim in (1, 0) * iterations:
        spread = std(weight / factors[0] / factors[1][:, None], mask, dim, 0).clamp(min=1e-4)
        factors[dim] = torch.where(mask.any(dim), (factors[dim] * spread).log().clamp(-10, 10).exp(), 1.0)
    return factors


def rms(weight: torch.Tensor, mask: torch.Tensor, iterations: int):
    """The root mean square of each column over the geometric mean of those that are not 0."""
    squares = torch.where(mask, weight, 0.0).square().sum(0)
    column = (squares / mask.sum(0).clamp(min=1)).sqrt()
    factor = (column / column[column > 0].log().mean().exp()).clamp(0.1, 10)
    return torch.where(column > 0, factor, 1.0), weight.new_ones(weight.shape[0])
