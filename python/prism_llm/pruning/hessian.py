"""Inverses of damped Hessians, with a ladder of dampings for those that are not positive definite in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..calibration import InputStatistics, StoredPanels, UpperPanels
from .panel_inverse import invert_, invert_to_factor_

Result = TypeVar("Result", UpperPanels, Tensor)

ONE_SHOT_LEAST_DAMPING = 1e-2
_LADDER = (1.0, 10.0, 100.0)


@dataclass
class HessianSolver:
    """What compensation needs from X^T X, computed once for all linears with that input.

    For the last of them set `keep` to False: what is then asked for is the caller's alone, so that its memory is free
    as soon as the caller has used it.

    Damping is `percdamp` times the mean of the diagonal. Where a factorization fails in float32 it is tried in float64,
    then both again with 10 and 100 times the damping; `notes` says what was needed. None means that all failed.

    Args:
        statistics: with `gram`.
        percdamp: first damping.
        keep: whether results are held for another linear.
    """

    statistics: InputStatistics
    percdamp: float = 0.01
    keep: bool = True
    notes: list[str] = field(default_factory=list)
    _cache: dict[str, Any] = field(default_factory=dict, repr=False)

    def one_shot_inverse(self) -> UpperPanels | None:
        """H^-1 with H = X^T X + lambda I and lambda = max(percdamp * mean diagonal, 1e-2), as PRISM."""
        return self._cached("one_shot", self._find_one_shot_inverse)

    def sweep_factor(self) -> UpperPanels | None:
        """U, the upper Cholesky factor of H^-1, as SparseGPT.

        H = (2 / tokens) X^T X, where a dead input (H_jj = 0) has H_jj = 1. A constant factor of H changes no weight.
        The damping is relative to the mean diagonal of the inputs that live (the original counts the ones of the
        dead).
        """
        return self._cached("sweep", self._find_sweep_factor)

    def damped_hessian(self) -> Tensor:
        """H [k, k] of `sweep_factor` with the first damping, for what needs no factorization."""
        panels, damping = self._sweep_hessian(torch.float32)
        panels.add_to_diagonal(damping)
        return panels.full(symmetric=True)

    def output_factor(self) -> Tensor | None:
        """Lower Cholesky factor L [k, k] of the damped H: ||D L|| is how far outputs move when weights move by D."""
        return self._cached("output", lambda: self._climb(self._sweep_hessian, 0.0, _lower_factor))

    def release(self) -> None:
        """Forgets what is held."""
        self._cache.clear()

    def dead_inputs(self) -> Tensor:
        """bool [k]: inputs that were 0 for every token."""
        return self._products().diagonal() == 0

    def _products(self) -> UpperPanels | StoredPanels:
        if self.statistics.products is None:
            raise ValueError("HessianSolver: statistics must hold the gram matrix, got norms only")
        return self.statistics.products

    def _find_one_shot_inverse(self) -> UpperPanels | None:
        return self._climb(self._one_shot_hessian, ONE_SHOT_LEAST_DAMPING, _inverse)

    def _find_sweep_factor(self) -> UpperPanels | None:
        return self._climb(self._sweep_hessian, 0.0, _inverse_factor)

    def _one_shot_hessian(self, dtype: torch.dtype) -> tuple[UpperPanels, float]:
        """A copy of X^T X, and its first damping."""
        products = self._products()
        return products.to(dtype), self.percdamp * float(products.diagonal().mean())

    def _sweep_hessian(self, dtype: torch.dtype) -> tuple[UpperPanels, float]:
        """(2 / tokens) X^T X with ones for dead inputs, and its first damping."""
        hessian = self._products().to(dtype, factor=2 / max(self.statistics.tokens, 1))
        dead = self.dead_inputs()
        living = hessian.diagonal()[~dead].float()
        damping = self.percdamp * float(living.mean()) if living.numel() else self.percdamp
        hessian.fill_diagonal(dead, 1.0)
        return hessian, damping

    def _cached(self, name: str, compute: Callable[[], Any]) -> Any:
        result = self._cache.pop(name) if name in self._cache else compute()
        if self.keep:
            self._cache[name] = result
        return result

    def _climb(
        self,
        hessian: Callable[[torch.dtype], tuple[UpperPanels, float]],
        least: float,
        invert: Callable[[UpperPanels], Result | None],
    ) -> Result | None:
        for factor in _LADDER:
            for dtype in (torch.float32, torch.float64):
                damped, damping = hessian(dtype)
                damped.add_to_diagonal(max(damping * factor, least))
                result = invert(damped)
                if result is not None:
                    if (factor, dtype) != (1.0, torch.float32):
                        self.notes.append(f"damping {self.percdamp * factor:g} in {str(dtype).removeprefix('torch.')}")
                    return result
        self.notes.append(f"Hessian not positive definite even with damping {self.percdamp * _LADDER[-1]:g} in float64")
        return None


def _inverse(matrix: UpperPanels) -> UpperPanels | None:
    """In place; float32."""
    return _finite(matrix) if invert_(matrix) else None


def _inverse_factor(matrix: UpperPanels) -> UpperPanels | None:
    """In place; float32."""
    return _finite(matrix) if invert_to_factor_(matrix) else None


def _lower_factor(matrix: UpperPanels) -> Tensor | None:
    factor, info = torch.linalg.cholesky_ex(matrix.full(symmetric=True))
    return None if int(info) or not bool(factor.isfinite().all()) else factor.float()


def _finite(matrix: UpperPanels) -> UpperPanels | None:
    if not matrix.is_finite():
        return None
    return matrix if matrix.dtype == torch.float32 else matrix.to(torch.float32)
