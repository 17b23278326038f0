"""Which weights go, and how the ones that stay make up for it."""

from .compensation import SweepResult, obs_one_shot, obs_sweep
from .hessian import HessianSolver
from .masks import Pattern, select_mask
from .scores import magnitude_score, prism_mask, wanda_score

__all__ = [
    "HessianSolver",
    "Pattern",
    "SweepResult",
    "magnitude_score",
    "obs_one_shot",
    "obs_sweep",
    "prism_mask",
    "select_mask",
    "wanda_score",
]
