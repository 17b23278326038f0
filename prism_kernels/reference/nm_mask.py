"""N:M masks: of every m consecutive scores in a row, keep the n largest."""

import torch


def nm_mask(scores: torch.Tensor, n_keep: int, m: int) -> torch.Tensor:
    """scores [n, k] -> bool [n, k]. Ties: the lower index is pruned first. NaN counts as -inf.

    A last group of r < m scores keeps ceil(n_keep * r / m).
    """
    n, k = scores.shape
    ordered = torch.where(scores.isnan(), -torch.inf, scores)
    mask = torch.zeros(n, k, dtype=torch.bool, device=scores.device)
    for begin, end, width in ((0, k - k % m, m), (k - k % m, k, k % m)):
        if begin == end:
            continue
        keep = -(-n_keep * width // m)
        groups = ordered[:, begin:end].reshape(n, (end - begin) // width, width)
        kept = groups.argsort(dim=-1, stable=True)[..., width - keep :]
        mask[:, begin:end] = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, kept, True).flatten(1)
    return mask
