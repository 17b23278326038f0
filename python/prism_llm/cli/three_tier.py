"""The options of `prism compress` for three-tier pruning, and its run over a schedule."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .exits import UsageError, usage_errors
from .models import require_device
from .output import progress, quiet_transformers

METHOD = "three-tier"
LEARNING_RATE = 2e-5


@dataclass(frozen=True)
class Plan:
    """A schedule, and how to go through it: all of it, or one iteration from the checkpoint of the one before."""

    schedule: Path
    iteration: int | None
    previous: Path | None
    learning_rate: float
    train_dataset: str
    device: str

    def check(self, model: str | None, recipe: Any) -> None:
        """Raises UsageError where options do not go together."""
        if recipe.tiers is None:
            raise UsageError(f"--schedule: must go with the method {METHOD}, got {recipe.method}")
        if self.previous is not None and self.iteration is None:
            raise UsageError(f"--previous: must go with --iteration, got {self.previous} alone")
        if self.previous is not None and model is not None:
            raise UsageError(f"MODEL: must not be given with --previous, whose model goes on, got {model!r}")


def changes(
    tiers: str | None, topk_per_block: int | None, block_size: int | None, method: str | None, recipe: Path | None
) -> dict[str, Any]:
    """The recipe fields of the options. Raises UsageError."""
    found: dict[str, Any] = {}
    if tiers is not None:
        wrong = UsageError(f"--tiers: must be three shares such as 0.35,0.45,0.2, got {tiers!r}")
        try:
            found["tiers"] = tuple(float(share) for share in tiers.split(","))
        except ValueError as error:
            raise wrong from error
        if len(found["tiers"]) != 3:
            raise wrong
    if topk_per_block is not None:
        found["topk_per_block"] = topk_per_block
    if block_size is not None:
        in_tiers = method == METHOD or tiers is not None or (recipe is not None and _has_tiers(recipe))
        found["tier_block_size" if in_tiers else "block_size"] = block_size
    return found


def _has_tiers(recipe: Path) -> bool:
    from prism_llm.pipeline import Recipe

    return Recipe.load(recipe).tiers is not None


def require_schedule(
    schedule: Path | None, iteration: int | None, previous: Path | None, training: Mapping[str, Any]
) -> None:
    """Raises UsageError for an option that means nothing without a schedule, or without training in it."""
    given = {name.replace("_", "-"): value for name, value in training.items() if value is not None}
    if schedule is None:
        for name, value in ({"iteration": iteration, "previous": previous} | given).items():
            if value is not None:
                raise UsageError(f"--{name}: must go with --schedule, got {value} alone")
    elif iteration is not None and given:
        name, value = next(iter(given.items()))
        raise UsageError(f"--{name}: must not go with --iteration, which does not train, got {value}")
    if "train-device" in given:
        require_device("--train-device", given["train-device"])


def run(
    source: str, output: Path, recipe: Any, plan: Plan, *, data_dir: Path | None, overwrite: bool
) -> dict[str, Any]:
    """Runs a schedule, or one iteration of it; returns the facts that `--json` prints."""
    from prism_llm.checkpoint import is_checkpoint
    from prism_llm.pipeline.schedule import Schedule
    from prism_llm.recovery import Training, prune_iteration, run_schedule

    from .compress import facts

    if plan.previous is None and is_checkpoint(source):
        raise UsageError(f"MODEL: must be a dense model, got the compressed checkpoint {source!r}")
    start = time.perf_counter()
    quiet_transformers()
    with usage_errors():
        schedule = Schedule.load(plan.schedule)
        training = Training(learning_rate=plan.learning_rate, dataset=plan.train_dataset, seed=recipe.seed)
        if plan.iteration is not None:
            row = schedule.row(plan.iteration)
            with progress(f"iteration {row.iteration}") as task:
                saved = prune_iteration(
                    source,
                    output,
                    row,
                    recipe,
                    previous=plan.previous,
                    data_dir=data_dir,
                    overwrite=overwrite,
                    progress=task,
                )
        else:
            with _Stages() as stages:
                saved = run_schedule(
                    source,
                    output,
                    schedule,
                    recipe,
                    training,
                    data_dir=data_dir,
                    device=plan.device,
                    overwrite=overwrite,
                    stages=stages,
                )
    name = str(plan.previous) if plan.previous is not None else source
    return facts(name, output, saved, recipe, time.perf_counter() - start)


class _Stages:
    """Gives each stage a progress of its own, and closes the one before."""

    def __init__(self) -> None:
        self._open: Any = None

    def __enter__(self) -> "_Stages":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, title: str) -> Any:
        from .output import Progress, logger

        self._close()
        logger.info("%s", title)
        self._open = Progress(title)
        return self._open

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
