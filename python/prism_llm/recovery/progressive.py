"""Progressive three-tier pruning over checkpoints: each iteration prunes the weights that the one before trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import (
    check_output,
    compress_to_checkpoint,
    is_checkpoint,
    load,
    load_tokenizer,
    open_checkpoint,
    save,
)
from ..checkpoint.staging import StagingDirectory
from ..pipeline.api import compress_, draw_calibration
from ..pipeline.recipe import Recipe
from ..pipeline.schedule import Schedule, ScheduleRow
from ..pipeline.tier_maps import FILE, TierMaps, tile_maps
from ..pruning.tiers import shrink_tiers
from .expand import expand_
from .finetune import finetune
from .training import Progress, Training

Stages = Callable[[str], Progress]
_RUN = "run.json"


def prune_iteration(
    source: str | Path | None,
    out: str | Path,
    row: ScheduleRow,
    recipe: Recipe,
    *,
    previous: str | Path | None = None,
    data_dir: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """One iteration without its training.

    Args:
        source: the dense model of iteration 1 (a folder, a hub name, None for the bundled model).
        out: directory to produce.
        row: the iteration and its shares.
        recipe: a three-tier recipe, whose shares are replaced by the row's.
        previous: for later iterations, the checkpoint of the iteration before, trained or not, with its tier maps.
        data_dir, overwrite, progress: as `compress_to_checkpoint`.

    Returns:
        The directory.

    Raises:
        FileNotFoundError: `previous` holds no tier maps.
        ValueError: `previous` is given for iteration 1 or missing for another, is of another iteration, block size or
            k, or its maps are not those of its weights.
    """
    recipe = recipe.replace(tiers=row.shares)
    if (previous is None) != (row.iteration == 1):
        rule = "not be given for iteration 1" if row.iteration == 1 else f"be given for iteration {row.iteration}"
        raise ValueError(f"prune_iteration: previous must {rule}, got {previous}")
    if previous is None:
        options: dict[str, Any] = {"data_dir": data_dir, "overwrite": overwrite, "progress": progress}
        return compress_to_checkpoint(source, out, recipe, iteration=row.iteration, **options)
    check_output(out, overwrite=overwrite)
    maps = _maps_before(previous, row, recipe)
    model, tokenizer = load(previous), load_tokenizer(previous)
    for name, tiles in tile_maps(dict(_tiered(model))).items():
        if not shrink_tiers(tiles, maps.block_size).equal(maps.maps[name]):
            raise ValueError(
                f"prune_iteration: tier map of {name} in {previous} must be that of its weight, got a foreign one"
            )
    expand_(model)
    notes: list[str] = []
    calibration = draw_calibration(model, recipe, tokenizer, data_dir, notes) if recipe.needs_calibration else None
    report = compress_(model, recipe, calibration, progress=progress, tiers=maps.maps)
    report.notes += notes
    after = TierMaps.of_tiles(row.iteration, maps.block_size, maps.top_k, tile_maps(dict(_tiered(model))))
    return save(model, out, tokenizer, recipe, report, overwrite=overwrite, files={FILE: after.to_bytes()})


def run_schedule(
    source: str | Path | None,
    out: str | Path,
    schedule: Schedule,
    recipe: Recipe,
    training: Training,
    *,
    data_dir: str | Path | None = None,
    device: torch.device | str = "cpu",
    overwrite: bool = False,
    stages: Stages | None = None,
) -> Path:
    """All iterations of a schedule, each pruned and then trained for its epochs; `out` is the last one's checkpoint.

    Every step is a checkpoint under `<out>.iterations/iteration-<i>/` (`pruned`, `finetuned`); a run that died goes on
    behind the last complete one, and inside a training behind the Trainer's last checkpoint.

    Args:
        source, recipe: as `prune_iteration`.
        out: directory to produce; appears complete or not at all.
        schedule: the iterations.
        training: settings; the schedule gives the epochs.
        device: where to train.
        overwrite: replace the checkpoint of a run that ended, and begin anew.
        stages: gives each stage, by its title, the progress to report to.

    Raises:
        ValueError: the iterations that lie there are of a run with another model, schedule, recipe or training.
        Others as `prune_iteration` and `finetune`.
    """
    out = Path(out)
    check_output(out, overwrite=overwrite)
    work = out.with_name(f"{out.name}.iterations")
    if is_checkpoint(out) and (work / _RUN).is_file():
        shutil.rmtree(work)  # of a run that ended
    _claim(work, _description(source, schedule, recipe, training))
    last: Path | None = None
    for row in schedule.rows:
        folder = work / f"iteration-{row.iteration}"
        title = f"iteration {row.iteration} of {len(schedule.rows)}"
        pruned = folder / "pruned"
        if not is_checkpoint(pruned):
            report = None if stages is None else stages(f"{title}, pruning")
            prune_iteration(source, pruned, row, recipe, previous=last, data_dir=data_dir, progress=report)
        last = pruned
        if row.epochs > 0:
            last = folder / "finetuned"
            if not is_checkpoint(last):
                report = None if stages is None else stages(f"{title}, training")
                own = replace(training, epochs=row.epochs)
                finetune(pruned, last, own, data_dir=data_dir, device=device, progress=report)
    assert last is not None
    return _publish(last, out, overwrite)


def _tiered(model: Any) -> Any:
    from prism_kernels.nn import TieredLinear

    return ((name, module) for name, module in model.named_modules() if isinstance(module, TieredLinear))


def _maps_before(previous: str | Path, row: ScheduleRow, recipe: Recipe) -> TierMaps:
    """The tier maps in `previous`, which must be those of the iteration before `row` and of `recipe`."""
    if not is_checkpoint(previous):
        raise ValueError(f"prune_iteration: previous must be a checkpoint of an iteration, got {previous}")
    maps = TierMaps.load(previous)
    for what, wanted, got in (
        ("iteration", row.iteration - 1, maps.iteration),
        ("tier_block_size", recipe.tier_block_size, maps.block_size),
        ("topk_per_block", recipe.topk_per_block, maps.top_k),
    ):
        if wanted != got:
            raise ValueError(f"prune_iteration: tier maps in {previous} must have {what} {wanted}, got {got}")
    maps.require_fit(open_checkpoint(previous).modules)
    return maps


def _description(source: str | Path | None, schedule: Schedule, recipe: Recipe, training: Training) -> dict[str, Any]:
    described = {
        "model": None if source is None else str(source),
        "schedule": schedule.to_list(),
        "recipe": recipe.to_dict(),
        "training": training.to_dict(),
    }
    return json.loads(json.dumps(described))


def _claim(work: Path, description: dict[str, Any]) -> None:
    """Makes the folder of a run, or goes on with it if it is the same run."""
    path = work / _RUN
    if path.is_file():
        held = json.loads(path.read_text("utf-8"))
        for key, value in description.items():
            if held.get(key) != value:
                raise ValueError(
                    f"run_schedule: {key} must be that of the run to go on with in {work}, got another; remove that "
                    "folder to begin anew"
                )
        return
    work.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(description, indent=2), "utf-8")
    partial.replace(path)


def _publish(last: Path, out: Path, overwrite: bool) -> Path:
    staging = StagingDirectory(out, overwrite=overwrite)
    staging.create()
    try:
        shutil.copytree(last, staging.path, dirs_exist_ok=True)
        return staging.publish()
    except BaseException:
        staging.discard()
        raise
