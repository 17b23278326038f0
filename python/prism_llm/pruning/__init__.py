"""Which weights go, and how the ones that stay make up for it."""

from .compensation import SweepResult, obs_one_shot, obs_sweep
from .hessian import HessianSolver
from .masks import Pattern, pruned_by, select_mask
from .scores import clearcut_score, magnitude_score, prism_mask, ria_score, wanda_score, wanda_variant_score

__all__ = [
    "HessianSolver",
    "Pattern",
    "SweepResult",
    "clearcut_score",
    "magnitude_score",
    "obs_one_shot",
    "obs_sweep",
    "prism_mask",
    "pruned_by",
    "ria_score",
    "select_mask",
    "wanda_score",
    "wanda_variant_score",
]
