"""Orders of input channels in which an n:m pattern keeps more of the score.

An n:m pattern keeps n of every m neighbours; which channels are neighbours is free as long as the input comes in the
same order. Both searches are those of RIA (Plug-and-Play, ICLR 2024):

* heuristic: channels sorted by the sum of their scores are cut in m equal segments; segment i goes to the positions
  i, i + m, i + 2 m, ..., every second one reversed, so that each group has one channel of each segment.
* lsa: from there, for each of the m slots in turn, the channels in that slot of all groups are assigned anew, such that
  the score kept is largest given the other slots (linear sum assignment, by scipy).

Limits: k mod m channels at the end keep their places. Assignments of more than `MAX_GROUPS` groups are split in
interleaved parts, each solved by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from prism_kernels import ops

from .masks import Pattern

Permute = Literal["none", "heuristic", "lsa"]

#: Finds the order int64 [k] of the columns of a score [n, k]; None where no order is better than the given one.
FindOrder = Callable[[Tensor], Tensor | None]

# The matrix of benefits has the square of that many entries, and the assignment takes its cube.
MAX_GROUPS = 1024
_CHUNK_ELEMENTS = 1 << 20


def find_permutation(score: Tensor, pattern: Pattern, method: Permute) -> Tensor | None:
    """The order `index` int64 [k] in which `score[:, index]` keeps most under the pattern, of those tried.

    Deviation from RIA: an order that keeps no more than the original one is not used.

    Args:
        score: float [n, k], not negative; larger is kept.
        pattern: n:m.
        method: "heuristic", or "lsa", which starts from it.

    Returns:
        The order, or None where none keeps more than the order given.

    Raises:
        ValueError: the pattern is unstructured or the method unknown.
        ModuleNotFoundError: "lsa" without scipy.
    """
    if not pattern.is_structured:
        raise ValueError("find_permutation: pattern must be n:m, got unstructured")
    if method not in ("heuristic", "lsa"):
        raise ValueError(f"find_permutation: method must be 'heuristic' or 'lsa', got {method!r}")
    score = score.float()
    whole = score.shape[1] - score.shape[1] % pattern.m
    if whole < 2 * pattern.m or score.shape[0] == 0:
        return None
    first = heuristic_order(score[:, :whole], pattern.m)
    orders = [first] if method == "heuristic" else [first, assigned_order(score[:, :whole], first, pattern)]
    best, most = None, kept_score(score[:, :whole], pattern)
    for order in orders:
        kept = kept_score(score[:, order], pattern)
        if kept > most:
            best, most = order, kept
    if best is None:
        return None
    return torch.cat([best, torch.arange(whole, score.shape[1], device=score.device)])


def permuted_mask(score: Tensor, pattern: Pattern, index: Tensor | None) -> Tensor:
    """The n:m mask (bool [n, k]) of the columns in the order `index`, in the order of the score."""
    if index is None:
        return ops.nm_mask(score, pattern.n, pattern.m)
    mask = torch.empty(score.shape, dtype=torch.bool, device=score.device)
    mask[:, index] = ops.nm_mask(score.index_select(1, index), pattern.n, pattern.m)
    return mask


def kept_score(score: Tensor, pattern: Pattern) -> float:
    """The sum over what the pattern keeps."""
    return float(torch.where(ops.nm_mask(score, pattern.n, pattern.m), score, 0.0).sum(dtype=torch.float64))


def heuristic_order(score: Tensor, m: int) -> Tensor:
    """RIA's reallocation of the columns of a score [n, k], k a multiple of m: int64 [k]."""
    ranked = score.sum(0, dtype=torch.float64).argsort(stable=True)
    index = torch.empty_like(ranked)
    for slot, segment in enumerate(ranked.split(len(ranked) // m)):
        index[slot::m] = segment.flip(0) if slot % 2 else segment
    return index


def assigned_order(score: Tensor, index: Tensor, pattern: Pattern) -> Tensor:
    """One sweep of linear sum assignments over the m slots, from the order `index`: int64 [k]."""
    n, k = score.shape
    groups = k // pattern.m
    parts = -(-groups // MAX_GROUPS)
    order = index.clone().view(groups, pattern.m)
    for part in range(parts):
        mine = torch.arange(part, groups, parts, device=score.device)
        columns = order[mine]
        scores = score.index_select(1, columns.flatten()).view(n, len(mine), pattern.m)
        for slot in range(pattern.m):
            giver = best_givers(scores, slot, pattern.n)
            columns[:, slot] = columns[giver, slot]
            scores[:, :, slot] = scores[:, giver, slot]
        order[mine] = columns
    return order.flatten()


def best_givers(scores: Tensor, slot: int, keep: int) -> Tensor:
    """Which group's column each group gets in `slot`, so that the `keep` largest of every group sum to the most.

    Let x_a be the column that group a has there, and t_b the `keep`-th largest score, per row, of the other columns of
    group b. Giving x_a to group b keeps sum_rows(max(x_a - t_b, 0)) more than giving it nothing.

    Args:
        scores: float32 [n, g, m].
        slot: from 0 to m - 1.
        keep: from 1 to m - 1.

    Returns:
        int64 [g], each group once.
    """
    width = scores.shape[2]
    others = [column for column in range(width) if column != slot]
    # In pieces: the copies would together be larger than the matrix.
    pieces = scores.split(max(1, _CHUNK_ELEMENTS // max(scores[0].numel(), 1)))
    threshold = torch.cat([piece[:, :, others].kthvalue(width - keep, dim=2).values for piece in pieces])
    given = scores[:, :, slot].contiguous()
    benefit = torch.zeros(scores.shape[1], scores.shape[1], device=scores.device)
    gain = torch.empty_like(benefit)
    for row in range(len(scores)):  # one row at a time stays in the cache, and is three times as fast as torch.cdist
        torch.sub(given[row, :, None], threshold[row], out=gain)
        benefit += gain.clamp_(min=0)
    return _assign(benefit)


def require_solver(method: Permute) -> None:
    """Raises ModuleNotFoundError where the method needs scipy and it is not installed."""
    if method != "lsa":
        return
    try:
        import scipy.optimize  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("find_permutation: permute 'lsa' needs scipy (pip install scipy)") from error


def _assign(benefit: Tensor) -> Tensor:
    """int64 [g]: which row serves each column of `benefit` [g, g], each row once, with the largest sum."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(benefit.double().cpu().numpy(), maximize=True)
    giver = torch.empty(len(rows), dtype=torch.int64)
    giver[torch.from_numpy(columns)] = torch.from_numpy(rows)
    return giver.to(benefit.device)


def within_heads(head_size: int, readers: int, pattern: Pattern, method: Permute) -> FindOrder:
    """Orders of the input of an attention's output projection that its value projection can give.

    The input has heads of `head_size` channels; `readers` heads in a row attend to one key-value head, whose channels
    can only be permuted for all of them at once. So all heads of a group get one order, found on their scores one above
    the other.

    Raises:
        ValueError: head_size is not a multiple of m (a group of the pattern would lie in two heads).
    """
    if head_size % pattern.m:
        raise ValueError(f"within_heads: head_size must be a multiple of {pattern.m}, got {head_size}")

    def find(score: Tensor) -> Tensor | None:
        n, k = score.shape
        heads = score.view(n, k // (readers * head_size), readers, head_size)
        found = False
        index = torch.arange(k, device=score.device).view(heads.shape[1:])
        for group in range(heads.shape[1]):
            order = find_permutation(heads[:, group].reshape(-1, head_size), pattern, method)
            if order is not None:
                index[group] = index[group][:, order]
                found = True
        return index.flatten() if found else None

    return find
