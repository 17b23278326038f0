"""Exact least squares on a fixed mask: the kept weights whose outputs are nearest to those of the dense layer.

Per row i with kept columns S: minimize (w' - w) H (w' - w)^T over w' that is 0 outside S, whose solution is
w'_S = H_SS^-1 (H w)_S. Every row has another S, so a direct solution needs one Cholesky factorization per row.
Conjugate gradients need none: the operator of row i is v -> m_i * (v H), so all rows step together by one product.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: Tokens per input below which the solution fits the calibration text rather than the layer.
LEAST_TOKENS_PER_INPUT = 2
MAX_ITERATIONS = 500
_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
# The recurrence drifts from the true residual by rounding; within this factor both mean the same.
_ROUNDING_ALLOWANCE = 10.0
_TINY = torch.finfo(torch.float64).tiny
# Rows are independent: so many weights at a time keep the temporaries, six of that size, small beside a block.
_SLAB_ELEMENTS = 2**23


@dataclass(frozen=True)
class LeastSquaresResult:
    """Of `least_squares`.

    Attributes:
        weight: [n, k], exactly 0 where pruned.
        residual: the largest over rows of ||m * ((w - w') H)|| over the same of w' = m * w, both in the norm of the
            preconditioner, recomputed from `weight`; 0 where nothing was to do.
        iterations: matrix products taken, over all slabs of rows.
        converged: whether `residual` is at most the tolerance.
    """

    weight: Tensor
    residual: float
    iterations: int
    converged: bool


def least_squares(
    weight: Tensor,
    mask: Tensor,
    hessian: Tensor,
    *,
    tolerance: float | None = None,
    max_iterations: int = MAX_ITERATIONS,
) -> LeastSquaresResult:
    """The minimizer of tr((W' - W) H (W' - W)^T) over all W' that are 0 where `mask` is False.

    Conjugate gradients, projected on the kept weights and preconditioned by the diagonal of H; all arithmetic in the
    dtype of `weight`, [k] sums of rows in float64. Rows that have converged stand still.

    Args:
        weight: float32 or float64 [n, k], finite.
        mask: bool [n, k], True = kept.
        hessian: [k, k], same dtype, symmetric and positive definite (a damped X^T X).
        tolerance: of `residual`; by default 1e-5 in float32 and 1e-12 in float64.
        max_iterations: at most so many products; at k + 1 nothing but rounding is left.

    Returns:
        A `LeastSquaresResult`.

    Raises:
        ValueError: dtypes or shapes do not fit, or the diagonal of `hessian` is not positive.
    """
    n, k = _check(weight, mask, hessian)
    tolerance = _TOLERANCE[weight.dtype] if tolerance is None else tolerance
    result, worst, iterations = torch.empty_like(weight), 0.0, 0
    for begin in range(0, n if k else 0, rows := max(1, _SLAB_ELEMENTS // k)):
        slab = slice(begin, begin + rows)
        result[slab], left, taken = _solve(weight[slab], mask[slab], hessian, tolerance, max_iterations)
        worst, iterations = max(worst, left), iterations + taken
    return LeastSquaresResult(result, worst, iterations, worst <= tolerance * _ROUNDING_ALLOWANCE)


def _solve(
    weight: Tensor, mask: Tensor, hessian: Tensor, tolerance: float, max_iterations: int
) -> tuple[Tensor, float, int]:
    """(solution, largest relative residual, products) of some rows together."""
    diagonal, kept = hessian.diagonal(), mask.to(weight.dtype)
    solution = weight * kept
    residual = (weight - solution) @ hessian * kept
    direction = residual / diagonal
    power = _dots(residual, direction)
    first, iterations = power.clone(), 0
    limit = first * tolerance**2
    while iterations < max_iterations and bool((power > limit).any()):
        image = direction @ hessian * kept
        curvature = _dots(direction, image)
        moving = (power > limit) & (curvature > 0)
        if not bool(moving.any()):
            break
        length = torch.where(moving, power / curvature.clamp(min=_TINY), 0.0).to(weight.dtype)[:, None]
        solution += length * direction
        residual -= length * image
        step = residual / diagonal
        following = _dots(residual, step)
        ratio = torch.where(moving, following / power.clamp(min=_TINY), 0.0).to(weight.dtype)[:, None]
        direction = step + ratio * direction
        power = torch.where(moving, following, power)
        iterations += 1
    true = (weight - solution) @ hessian * kept
    left = _dots(true, true / diagonal)
    relative = torch.where(first > 0, (left / first.clamp(min=_TINY)).sqrt(), 0.0)
    return solution, float(relative.max()), iterations


def enough_tokens(tokens: int, in_features: int) -> bool:
    """Whether least squares over so many calibration tokens describes the layer and not its calibration text.

    On held-out tokens of a synthetic layer (192 inputs, half of the weights pruned) it lost to no update at all with
    one token per input, as did the sweep, and beat both with two and more.
    """
    return tokens >= LEAST_TOKENS_PER_INPUT * in_features


def _dots(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(1, dtype=torch.float64)


def _check(weight: Tensor, mask: Tensor, hessian: Tensor) -> tuple[int, int]:
    def require(condition: bool, argument: str, rule: str, got: object) -> None:
        if not condition:
            raise ValueError(f"least_squares: {argument} must {rule}, got {got}")

    require(weight.dim() == 2 and weight.dtype in _TOLERANCE, "weight", "be float32 or float64 [n, k]", weight.dtype)
    n, k = weight.shape
    require(mask.dtype == torch.bool and mask.shape == (n, k), "mask", f"be bool [{n}, {k}]", list(mask.shape))
    fits = hessian.shape == (k, k) and hessian.dtype == weight.dtype
    require(fits, "hessian", f"be {weight.dtype} [{k}, {k}]", f"{hessian.dtype} {list(hessian.shape)}")
    least = float(hessian.diagonal().min()) if k else 1.0
    require(least > 0, "hessian", "have a positive diagonal", least)
    return n, k
