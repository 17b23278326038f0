"""Refuses options of `prism compress` that change nothing beside the others: what is asked for happens, or fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .exits import UsageError

_SWEEPS = ("obs_sweep", "least_squares")
_WITH_EXPONENT = ("ria", "clearcut")


class _Rule(NamedTuple):
    """When the option of a recipe's field has an effect. What is `neutral` asks for nothing, so it is always fine."""

    option: str
    applies: Callable[[Any], bool]
    partner: str
    neutral: object = None


def _prunes(recipe: Any) -> bool:
    return recipe.prunes


def _quantizes(recipe: Any) -> bool:
    return recipe.bits is not None


def _has_factors(recipe: Any) -> bool:
    return recipe.low_rank is not None


def _counts_by_scope(recipe: Any) -> bool:
    free = recipe.pattern == "unstructured" and recipe.tiers is None
    return recipe.prunes and free and recipe.score != "sparsegpt"


_PRUNING = "something to prune (--sparsity or --pattern)"
_QUANTIZATION = "something to quantize (--bits)"
_RULES: dict[str, _Rule] = {
    "score": _Rule("--score", _prunes, _PRUNING),
    "scope": _Rule("--scope", _counts_by_scope, "unstructured pruning by a score other than sparsegpt"),
    "permute": _Rule("--permute", _prunes, "an n:m pattern (--pattern)", "none"),
    "ratios": _Rule("--ratios", _prunes, _PRUNING, "uniform"),
    "ria_exponent": _Rule(
        "--ria-exponent", lambda r: r.prunes and r.score in _WITH_EXPONENT, f"the score {' or '.join(_WITH_EXPONENT)}"
    ),
    "compensate": _Rule(
        "--compensate", lambda r: r.compensates, "something to prune, or with --bits and --rounding joint", "none"
    ),
    "scale": _Rule("--scale", _quantizes, _QUANTIZATION, "none"),
    "codebook": _Rule("--codebook", _quantizes, _QUANTIZATION, "uniform"),
    "round": _Rule("--rounding", _quantizes, _QUANTIZATION, "rtn"),
    "group_size": _Rule("--group-size", _quantizes, _QUANTIZATION),
    "low_rank_of": _Rule("--low-rank-of", _has_factors, "--low-rank"),
    "low_rank_weighting": _Rule("--low-rank-weighting", _has_factors, "--low-rank", "none"),
    "topk_per_block": _Rule("--topk-per-block", lambda r: r.tiers is not None, "three-tier pruning"),
    "block_size": _Rule(
        "--block-size",
        lambda r: r.compensates and r.compensate in _SWEEPS,
        f"three-tier pruning or a sweep (--compensate {' or '.join(_SWEEPS)})",
    ),
}


def require_effect(recipe: Any, given: Mapping[str, Any], options: Mapping[str, str]) -> None:
    """Raises UsageError for a field of `recipe` that was given (`given`, by name) and changes nothing.

    Args:
        options: what the user typed instead of the field's own option.
    """
    for field, value in given.items():
        rule = _RULES.get(field)
        if rule is None or value == rule.neutral or rule.applies(recipe):
            continue
        name, shown = options.get(field, rule.option), "" if field in options else f" {value}"
        raise UsageError(f"{name}: must go with {rule.partner}, got{shown or ' it'} without")
