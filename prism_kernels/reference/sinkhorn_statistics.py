"""Statistics of one matrix [n, k] over its kept entries: dim 0 gives one value per column, dim 1 one per row."""

import torch


def std(weight: torch.Tensor, mask: torch.Tensor, dim: int, correction: int) -> torch.Tensor:
    """sqrt(sum (w - mean)^2 / (count - correction)); 0 where fewer than two entries are kept."""
    count = mask.sum(dim, keepdim=True)
    mean = torch.where(mask, weight, 0.0).sum(dim, keepdim=True) / count.clamp(min=1)
    squares = torch.where(mask, weight - mean, 0.0).square().sum(dim, keepdim=True)
    return (squares / (count - correction).clamp(min=1)).sqrt().squeeze(dim)


def live(weight: torch.Tensor, mask: torch.Tensor, dim: int) -> torch.Tensor:
    """Where std is not 0: two kept entries differ. Asked of them, as the rounded std of equal entries may not be 0."""
    return torch.where(mask, weight, -torch.inf).amax(dim) > torch.where(mask, weight, torch.inf).amin(dim)
