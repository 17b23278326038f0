"""Tolerances, problem shapes and the poison context; shared by tests and benchmarks."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

#: What one rounding to the output dtype costs, relative.
_EPS = {torch.float32: 2**-23, torch.float16: 2**-10, torch.bfloat16: 2**-7, torch.float64: 2**-52}


@dataclass(frozen=True)
class LinearProblem:
    """Shapes of one `x [m, k] @ weight [n, k]^T`, and why this shape is in the list."""

    id: str
    m: int
    n: int
    k: int


#: Odd shapes first: every tail of every kernel is reached by one of these.
LINEAR_PROBLEMS = (
    LinearProblem("single", 1, 1, 1),
    LinearProblem("k_below_word", 2, 3, 7),
    LinearProblem("k_below_block", 3, 5, 63),
    LinearProblem("one_block", 1, 16, 64),
    LinearProblem("block_plus_one", 4, 17, 65),
    LinearProblem("prime", 5, 31, 127),
    LinearProblem("two_blocks_tail", 7, 33, 129),
    LinearProblem("empty_batch", 0, 8, 64),
    LinearProblem("rows_tail", 9, 67, 256),
    LinearProblem("prefill", 33, 48, 320),
    LinearProblem("long_k", 2, 9, 1009),
)


def tolerance(dtype: torch.dtype, k: int) -> float:
    """max(one rounding of the output, 4 eps(fp32) sqrt(k) of the accumulation)."""
    return max(_EPS[dtype], 4 * _EPS[torch.float32] * math.sqrt(max(k, 1)))


def max_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """max |actual - expected| / (|expected| + rms of the expected row); 0/0 counts as 0."""
    expected = expected.double()
    error = (actual.double() - expected).abs()
    rms = expected.square().mean(dim=-1, keepdim=True).sqrt() if expected.numel() else expected
    relative = torch.where(error == 0, 0.0, error / (expected.abs() + rms))
    return float(relative.max()) if relative.numel() else 0.0


def assert_matches(actual: torch.Tensor, expected: torch.Tensor, k: int) -> None:
    """`actual` of some float dtype equals the float64 reference within the one rule for all kernels."""
    assert actual.shape == expected.shape, f"shape {list(actual.shape)}, expected {list(expected.shape)}"
    error, limit = max_error(actual, expected), tolerance(actual.dtype, k)
    if not error <= limit:  # also catches NaN
        gap = (actual.double() - expected.double()).abs().nan_to_num(nan=math.inf)
        where = tuple(int(i) for i in torch.unravel_index(gap.argmax(), gap.shape))
        raise AssertionError(
            f"max error {error:.3e} exceeds {limit:.3e}; worst at {where}: got {actual[where].item()}, "
            f"expected {expected[where].item()}"
        )


@contextlib.contextmanager
def poisoned_empty() -> Iterator[None]:
    """Inside, torch fills every fresh tensor with NaN or the largest integer, so that an unwritten output shows."""
    settings: Any = torch.utils.deterministic
    deterministic = torch.are_deterministic_algorithms_enabled()
    fill = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    settings.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        settings.fill_uninitialized_memory = fill
