"""KMIF (LS-PRISM): a rank from the spectrum, as two clusters of log singular values and the outliers among them.

Both pieces are one-dimensional here, so they are a few lines: the best split into two clusters is found exactly, where
scikit-learn's KMeans approaches it from random starts, and an isolation tree is a recursion over a sorted sample.
"""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

CONTAMINATION = 0.1
TREES = 100
SAMPLE = 256
SEED = 42
LARGEST_SHARE = 0.9
_EULER = 0.5772156649015329
# Log singular values below this share of the largest one are those of rounding.
_FLOOR = 1e-12


def kmif_rank(values: Tensor, n: int, k: int) -> int:
    """How many singular values the dominant cluster and the outliers of log(values) make up.

    The union of the cluster of larger values (2-means) and the CONTAMINATION share of values that an isolation forest
    (100 trees over samples of 256, seed 42) isolates soonest; at most 0.9 n k / (n + k), at least 1.

    Deviations: the optimal clusters (the original takes the best of random starts), and this forest's own random
    splits (the original's are scikit-learn's); both are the same in every run.

    Args:
        values: singular values of an [n, k] matrix, descending.
    """
    if values.numel() == 0 or float(values[0]) <= 0:
        return 1
    spectrum = values.double().cpu().numpy()
    logs = np.log(np.maximum(spectrum, spectrum[0] * _FLOOR))
    chosen = np.arange(len(logs)) < split_in_two(logs)
    chosen |= outliers(logs)
    most = int(LARGEST_SHARE * n * k / (n + k))
    return max(1, min(int(chosen.sum()), most))


def split_in_two(values: np.ndarray) -> int:
    """How many of the descending `values` form the larger of the two clusters of least squared distance to their means.

    Equal values form one cluster. The first of equal splits counts."""
    count = len(values)
    if count < 2 or values[0] == values[-1]:
        return count
    centred = values - values.mean()
    sums, sizes = np.cumsum(centred)[:-1], np.arange(1, count)
    # The sum of squares within clusters is the total less what the means explain.
    explained = sums**2 / sizes + sums**2 / (count - sizes)
    return int(explained.argmax()) + 1


def outliers(values: np.ndarray) -> np.ndarray:
    """bool: those whose isolation score is beyond the (1 - CONTAMINATION) quantile of all scores."""
    count = len(values)
    size = min(SAMPLE, count)
    if size < 2:
        return np.zeros(count, bool)
    order = np.argsort(values, kind="stable")
    queries, generator = values[order], np.random.RandomState(SEED)
    depth, deepest = np.zeros(count), math.ceil(math.log2(size))
    for _ in range(TREES):
        sample = np.sort(values[generator.permutation(count)[:size]])
        _isolate(sample, queries, depth, 0, deepest, generator)
    score = np.empty(count)
    score[order] = 2.0 ** (-depth / TREES / _expected_depth(size))
    return score > np.quantile(score, 1 - CONTAMINATION)


def _isolate(
    sample: np.ndarray,
    queries: np.ndarray,
    depth: np.ndarray,
    level: int,
    deepest: int,
    generator: np.random.RandomState,
) -> None:
    """Adds to `depth` how deep each of the sorted `queries` lies in a random tree over the sorted `sample`."""
    if len(queries) == 0:
        return
    if level == deepest or len(sample) < 2 or sample[0] == sample[-1]:
        depth += level + _expected_depth(len(sample))
        return
    cut = generator.uniform(sample[0], sample[-1])
    at, below = np.searchsorted(sample, cut, "right"), np.searchsorted(queries, cut, "right")
    _isolate(sample[:at], queries[:below], depth[:below], level + 1, deepest, generator)
    _isolate(sample[at:], queries[below:], depth[below:], level + 1, deepest, generator)


def _expected_depth(size: int) -> float:
    """The mean depth of an unsuccessful search in a binary tree of `size` leaves."""
    if size <= 1:
        return 0.0
    if size == 2:
        return 1.0
    return 2.0 * (math.log(size - 1.0) + _EULER) - 2.0 * (size - 1.0) / size
