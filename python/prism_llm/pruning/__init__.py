"""Which weights go, and how the ones that stay make up for it."""

from .compensation import SweepResult, obs_one_shot, obs_sweep
from .hessian import HessianSolver
from .masks import Pattern, select_mask
from .scores import magnitude_score, prism_mask, wanda_score
from .tiers import demote, expand_tiers, map_shape, require_pruned, shrink_tiers, tier_counts, tier_mask, tier_sparsity

__all__ = [
    "HessianSolver",
    "Pattern",
    "SweepResult",
    "demote",
    "expand_tiers",
    "magnitude_score",
    "map_shape",
    "obs_one_shot",
    "obs_sweep",
    "prism_mask",
    "require_pruned",
    "select_mask",
    "shrink_tiers",
    "tier_counts",
    "tier_mask",
    "tier_sparsity",
    "wanda_score",
]
