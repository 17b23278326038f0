"""How much of each matrix goes where sparsity is not the same for all: OWL, and one threshold for a whole model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# A float32 magnitude is its bits as an integer, in the same order: 16 high bits select a bin, 15 low bits the value.
_LOW_BITS = 15
_CHUNK_ELEMENTS = 1 << 22


class GlobalThreshold:
    """The magnitude below which exactly `count` weights of many matrices lie, found without holding them.

    Two passes over the weights fill two histograms (of the high and of the low bits of |W| in float32), so the
    threshold is exact; memory is the counters. Matrices are then asked for in one order, and what equals the threshold
    is pruned in that order until the count is met.

        threshold = GlobalThreshold(count)
        for _ in threshold.passes:
            for weight in weights:
                threshold.add(weight)
        for weight in weights:
            pruned = threshold.pruned(weight)

    Args:
        count: how many weights to prune in total, at most as many as the matrices hold.
    """

    passes = ("high bits", "low bits")

    def __init__(self, count: int) -> None:
        self._left = count  # below the bin under inspection: how many are still to be found in it
        self._bin: int | None = None
        self._histogram = torch.zeros(1 << (31 - _LOW_BITS), dtype=torch.int64)
        self._value: int | None = None

    def add(self, weight: Tensor) -> None:
        """Counts one matrix in the pass under way."""
        for bits in _magnitude_bits(weight):
            if self._bin is None:
                keys = bits >> _LOW_BITS
            else:
                keys = bits[bits >> _LOW_BITS == self._bin] & ((1 << _LOW_BITS) - 1)
            self._histogram += torch.bincount(keys, minlength=self._histogram.numel()).cpu()

    def end_pass(self) -> None:
        """After all matrices: the bin (first pass) or the value (second) at which the count is reached."""
        sums = self._histogram.cumsum(0)
        if int(sums[-1]) < self._left:
            raise ValueError(f"GlobalThreshold: count must be at most {int(sums[-1])}, got {self._left}")
        found = int(torch.searchsorted(sums, self._left))  # the first bin up to which at least `left` lie
        self._left -= int(sums[found] - self._histogram[found])
        if self._bin is None:
            self._bin = found
            self._histogram = torch.zeros(1 << _LOW_BITS, dtype=torch.int64)
        else:
            self._value = (self._bin << _LOW_BITS) | found

    def pruned(self, weight: Tensor) -> int:
        """How many of this matrix go; each matrix is asked for once, and ties are used up in the order of calls."""
        if self._value is None:
            raise RuntimeError("GlobalThreshold: both passes must end before a matrix is asked for")
        below = equal = 0
        for bits in _magnitude_bits(weight):
            below += int((bits < self._value).sum())
            equal += int((bits == self._value).sum())
        taken = min(equal, self._left)
        self._left -= taken
        return below + taken


def _magnitude_bits(weight: Tensor) -> list[Tensor]:
    """|W| in float32 as int32, in pieces."""
    return [part.float().abs().view(torch.int32) for part in weight.detach().reshape(-1).split(_CHUNK_ELEMENTS)]


@dataclass(frozen=True)
class OutlierCount:
    """Of one block: `weights` whose inputs are known, how many of them have a Wanda score above M times the block's
    mean, and `unseen` weights about whose inputs nothing is known."""

    weights: int
    outliers: int
    unseen: int = 0

    @property
    def share(self) -> float | None:
        """Of the weights whose inputs are known; None without any."""
        return self.outliers / self.weights if self.weights else None


def count_outliers(layers: Sequence[tuple[Tensor, Tensor]], factor: float, unseen: int = 0) -> OutlierCount:
    """OWL's layerwise outlier distribution (arXiv 2310.05175) of one block.

    Args:
        layers: per linear its weight [n, k] and the float [k] L2 norms of its inputs.
        factor: M; an outlier is more than M times the mean of |W_ij| ||X_j|| over all linears of the block.
        unseen: weights of the block whose inputs are not known.
    """
    weights = sum(weight.numel() for weight, _ in layers)
    total = sum(float((weight.float().abs() * norms).sum(dtype=torch.float64)) for weight, norms in layers)
    bound = factor * total / max(weights, 1)
    outliers = sum(int((weight.float().abs() * norms > bound).sum()) for weight, norms in layers)
    return OutlierCount(weights, outliers, unseen)


def owl_sparsities(blocks: Sequence[OutlierCount], sparsity: float, spread: float) -> list[float]:
    """The sparsity of each block: the more outliers, the denser, within 2 `spread` (lambda), with the mean `sparsity`.

    density_b = 2 lambda (D_b - min D) / (max D - min D), shifted by one constant. The mean is weighted by the blocks'
    weights, unseen ones too (the original's is over blocks, the same where all are alike); blocks with equal shares
    share one sparsity. Where no weight's inputs are known, a block has the sparsity itself.

    Raises:
        ValueError: a block's sparsity would leave [0, 1).
    """
    shares = [block.share for block in blocks if block.share is not None]
    low, high = min(shares, default=0.0), max(shares, default=0.0)
    raised = [
        None if block.share is None else 2 * spread * (block.share - low) / (high - low) if high > low else 0.0
        for block in blocks
    ]
    sizes = [(block.weights + block.unseen, up) for block, up in zip(blocks, raised, strict=True) if up is not None]
    mean = sum(up * size for size, up in sizes) / max(sum(size for size, _ in sizes), 1)
    result = [sparsity if up is None else sparsity + mean - up for up in raised]
    if min(result) < 0 or max(result) >= 1:
        raise ValueError(
            f"owl_sparsities: sparsity {sparsity} and lambda {spread} must leave every block in [0, 1), got "
            f"{min(result):.4f} to {max(result):.4f}; a smaller lambda does"
        )
    return result


def exact_counts(shares: Mapping[str, tuple[int, float]], total: int) -> dict[str, int]:
    """Whole counts near weights * sparsity that sum to `total`: rounded cumulatively, in the order given.

    Args:
        shares: (weights, sparsity) by name, whose products sum to `total` up to one.
        total: the sum.
    """
    counts: dict[str, int] = {}
    wanted, given = 0.0, 0
    last = [*shares][-1:]
    for name, (weights, sparsity) in shares.items():
        wanted += weights * sparsity
        upto = total if [name] == last else min(round(wanted), total)
        counts[name] = min(max(upto - given, 0), weights)
        given += counts[name]
    if given != total:
        raise ValueError(f"exact_counts: total must be near the sum of weights * sparsity, got {total} for {given}")
    return counts
