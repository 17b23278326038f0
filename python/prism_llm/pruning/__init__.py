"""Which weights go, and how the ones that stay make up for it."""

from .compensation import SweepResult, obs_one_shot, obs_sweep
from .hessian import HessianSolver
from .least_squares import LeastSquaresResult, enough_tokens, least_squares
from .masks import Pattern, select_mask, share_of
from .permutation import FindOrder, Permute, find_permutation, permuted_mask, require_solver, within_heads
from .ratios import GlobalThreshold, count_outliers, exact_counts, owl_sparsities
from .scores import clearcut_score, magnitude_score, prism_mask, ria_score, wanda_score, wanda_variant_score
from .tiers import demote, expand_tiers, map_shape, require_pruned, shrink_tiers, tier_counts, tier_mask, tier_sparsity

__all__ = [
    "FindOrder",
    "GlobalThreshold",
    "HessianSolver",
    "LeastSquaresResult",
    "Pattern",
    "Permute",
    "SweepResult",
    "clearcut_score",
    "count_outliers",
    "demote",
    "enough_tokens",
    "exact_counts",
    "expand_tiers",
    "find_permutation",
    "least_squares",
    "magnitude_score",
    "map_shape",
    "obs_one_shot",
    "obs_sweep",
    "owl_sparsities",
    "permuted_mask",
    "prism_mask",
    "require_pruned",
    "require_solver",
    "ria_score",
    "select_mask",
    "share_of",
    "shrink_tiers",
    "tier_counts",
    "tier_mask",
    "tier_sparsity",
    "wanda_score",
    "wanda_variant_score",
    "within_heads",
]
