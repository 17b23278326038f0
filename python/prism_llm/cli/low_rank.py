"""Options of `prism compress` for factors of low rank."""

from __future__ import annotations

from typing import Any

from .exits import UsageError

METHOD = "ls-prism"


def low_rank_changes(
    low_rank: str | None, target_modules: str | None, preset: str | None, method: str | None, sparsity: float | None
) -> dict[str, Any]:
    """Recipe fields of --low-rank, --target-modules and --preset.

    Raises:
        UsageError: a value that means nothing, or options that do not go together.
    """
    from prism_llm.pipeline.low_rank import module_patterns
    from prism_llm.pipeline.presets import LS_PRISM_LEVELS

    changes: dict[str, Any] = {}
    if low_rank is not None:
        changes["low_rank"] = _rank(low_rank)
    if target_modules is not None:
        if low_rank is None and method != METHOD:
            raise UsageError(f"--target-modules: must come with --low-rank, got {target_modules!r} alone")
        changes["low_rank_targets"] = module_patterns(target_modules)
    if preset is not None:
        if method != METHOD:
            raise UsageError(f"--preset: must come with --method {METHOD}, got {preset!r}")
        if preset not in LS_PRISM_LEVELS:
            raise UsageError(f"--preset: must be one of {', '.join(LS_PRISM_LEVELS)}, got {preset!r}")
        if sparsity is not None:
            raise UsageError(f"--preset: must not go with --sparsity, which it sets, got {preset!r}")
        changes["sparsity"] = LS_PRISM_LEVELS[preset]
    return changes


def _rank(text: str) -> int | float | str:
    if text == "kmif":
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise UsageError(f'--low-rank: must be a share, a rank, or "kmif", got {text!r}')
