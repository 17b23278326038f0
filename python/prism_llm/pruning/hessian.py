"""Inverses of damped Hessians, with a ladder of dampings for those that are not positive definite in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..calibration import InputStatistics

ONE_SHOT_LEAST_DAMPING = 1e-2
_LADDER = (1.0, 10.0, 100.0)


@dataclass
class HessianSolver:
    """What compensation needs from X^T X, computed once for all linears with that input.

    Damping is `percdamp` times the mean of the diagonal. Where a factorization fails in float32 it is tried in float64,
    then both again with 10 and 100 times the damping; `notes` says what was needed. None means that all failed.

    Args:
        statistics: with `gram`.
        percdamp: first damping.
    """

    statistics: InputStatistics
    percdamp: float = 0.01
    notes: list[str] = field(default_factory=list)
    _cache: dict[str, Tensor | None] = field(default_factory=dict, repr=False)

    def one_shot_inverse(self) -> Tensor | None:
        """H^-1 [k, k] with H = X^T X + lambda I and lambda = max(percdamp * mean diagonal, 1e-2), as PRISM."""
        return self._cached("one_shot", self._find_one_shot_inverse)

    def sweep_factor(self) -> Tensor | None:
        """U [k, k], the upper Cholesky factor of H^-1, as SparseGPT.

        H = (2 / tokens) X^T X, where a dead input (H_jj = 0) has H_jj = 1. A constant factor of H changes no weight.
        The damping is relative to the mean diagonal of the inputs that live (the original counts the ones of the
        dead).
        """
        return self._cached("sweep", self._find_sweep_factor)

    def damped_hessian(self) -> Tensor:
        """H [k, k] of `sweep_factor` with the first damping, for what needs no factorization."""
        hessian, damping = self._sweep_hessian()
        hessian.diagonal().add_(damping)
        return hessian

    def output_factor(self) -> Tensor | None:
        """Lower Cholesky factor L [k, k] of the damped H: ||D L|| is how far outputs move when weights move by D."""
        return self._cached("output", lambda: self._climb(*self._sweep_hessian(), 0.0, _factor))

    def dead_inputs(self) -> Tensor:
        """bool [k]: inputs that were 0 for every token."""
        return self._gram().diagonal() == 0

    def _gram(self) -> Tensor:
        if self.statistics.gram is None:
            raise ValueError("HessianSolver: statistics must hold the gram matrix, got norms only")
        return self.statistics.gram

    def _find_one_shot_inverse(self) -> Tensor | None:
        gram = self._gram()
        damping = self.percdamp * float(gram.diagonal().mean())
        return self._climb(gram, damping, ONE_SHOT_LEAST_DAMPING, _inverse)

    def _find_sweep_factor(self) -> Tensor | None:
        return self._climb(*self._sweep_hessian(), 0.0, _inverse_factor)

    def _sweep_hessian(self) -> tuple[Tensor, float]:
        """(2 / tokens) X^T X with ones for dead inputs, and its first damping."""
        hessian = self._gram() * (2 / max(self.statistics.tokens, 1))
        dead = self.dead_inputs()
        diagonal = hessian.diagonal()
        living = diagonal[~dead]
        damping = self.percdamp * float(living.mean()) if living.numel() else self.percdamp
        diagonal[dead] = 1.0
        return hessian, damping

    def _cached(self, name: str, compute: Callable[[], Tensor | None]) -> Tensor | None:
        if name not in self._cache:
            self._cache[name] = compute()
        return self._cache[name]

    def _climb(
        self, hessian: Tensor, damping: float, least: float, invert: Callable[[Tensor], Tensor | None]
    ) -> Tensor | None:
        for factor in _LADDER:
            for dtype in (torch.float32, torch.float64):
                damped = hessian.to(dtype, copy=True)
                damped.diagonal().add_(max(damping * factor, least))
                result = invert(damped)
                if result is not None and bool(result.isfinite().all()):
                    if (factor, dtype) != (1.0, torch.float32):
                        self.notes.append(f"damping {self.percdamp * factor:g} in {str(dtype).removeprefix('torch.')}")
                    return result.float()
        self.notes.append(f"Hessian not positive definite even with damping {self.percdamp * _LADDER[-1]:g} in float64")
        return None


def _factor(matrix: Tensor) -> Tensor | None:
    factor, info = torch.linalg.cholesky_ex(matrix)
    return None if int(info) else factor


def _inverse(matrix: Tensor) -> Tensor | None:
    factor = _factor(matrix)
    return None if factor is None else torch.cholesky_inverse(factor)


def _inverse_factor(matrix: Tensor) -> Tensor | None:
    inverse = _inverse(matrix)
    if inverse is None:
        return None
    factor, info = torch.linalg.cholesky_ex(inverse, upper=True)
    return None if int(info) else factor
