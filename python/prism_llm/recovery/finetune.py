"""`finetune`: a compressed checkpoint is trained under its masks and becomes a checkpoint of the same formats."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint import check_output, load, load_tokenizer, open_checkpoint, save
from ..data.sources import TextSource, evaluation_windows, load_text
from ..evaluation.windows import position_limit
from ..pipeline.tier_maps import FILE
from .expand import expand_, repack_, require_lossless, stored_format
from .training import Progress, Training, train

_SETTINGS = "finetune.json"


def finetune(
    checkpoint: str | Path,
    out: str | Path,
    training: Training | None = None,
    *,
    data_dir: str | Path | None = None,
    device: torch.device | str = "cpu",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Trains the kept weights of a compressed checkpoint, and everything that is not compressed.

    Masks are fixed: a pruned weight stays exactly 0. Weights are trained in float32 and stored in the dtype they had.
    The result is that of the best evaluation, or the start where none was better. A run that died goes on: the
    Trainer's checkpoints lie in `<out>.training` until the result is complete.

    Args:
        checkpoint: with linears in lossless sparse formats (bitmap, 2:4, tiered, CSR).
        out: directory to produce; appears complete or not at all.
        training: settings; None = the defaults.
        data_dir: local copy of the dataset.
        device: where to train.
        overwrite: replace an existing checkpoint once the new one is complete.
        progress: called with steps done, all steps, and a note.

    Returns:
        The directory. Its report has what training did under "finetune".

    Raises:
        ValueError: quantized or factored linears, a text that is too short, or other settings than the run to go on.
        CheckpointError: the checkpoint is broken, or the output is refused.
        ModuleNotFoundError: accelerate is not installed.
        RuntimeError: the loss is not finite.
    """
    training = training or Training()
    check_output(out, overwrite=overwrite)
    source = open_checkpoint(checkpoint)
    require_lossless("finetune", {name: stored_format(module) for name, module in source.modules.items()})
    folder = Path(out).with_name(f"{Path(out).name}.training")
    _claim(folder, {"run_id": source.run_id, "training": training.to_dict()})
    tokenizer = load_tokenizer(checkpoint)
    model = load(checkpoint, device)
    config = copy.deepcopy(model.config)
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    sparse = expand_(model, torch.float32)
    _cast(model, dict.fromkeys(dtypes, torch.float32))
    windows, validation, text = training_windows(model, tokenizer, training, data_dir)
    result = train(model, sparse, windows, validation, training, folder, progress=progress)
    _cast(model, dtypes)
    repack_(model, sparse)
    model.config = config  # the Trainer changes fields of it
    done = {"settings": training.to_dict(), "text": text, **result.to_dict()}
    report = dict(source.report or {})
    report["finetune"] = [*report.get("finetune", []), done]
    maps = Path(checkpoint) / FILE
    files = {FILE: maps.read_bytes()} if maps.is_file() else {}
    saved = save(model, out, tokenizer, source.recipe, report, overwrite=overwrite, files=files)
    shutil.rmtree(folder)
    return saved


def training_windows(
    model: nn.Module, tokenizer: Any, training: Training, data_dir: str | Path | None
) -> tuple[Tensor, Tensor, str]:
    """Token ids to train on and to evaluate on, int64 [num, seqlen] each, and what they are."""
    seqlen = min(training.seqlen, position_limit(model) or training.seqlen)
    text = load_text(training.dataset, "train", data_dir)
    windows = evaluation_windows(text, tokenizer, seqlen)
    held_out = _validation_text(training, data_dir)
    if held_out is not None:
        validation, what = evaluation_windows(held_out, tokenizer, seqlen), held_out.description
    else:
        count = max(1, round(windows.shape[0] * training.validation_share))
        if windows.shape[0] <= count:
            raise ValueError(
                f"finetune: dataset must give at least 2 windows of {seqlen} tokens, got {windows.shape[0]} from "
                f"{text.description}"
            )
        windows, validation = windows[:-count], windows[-count:]
        what = "its last part"
    trained = f"{windows.shape[0]} x {seqlen} tokens of {text.description}"
    return windows, validation, f"{trained}; evaluated on {validation.shape[0]} windows of {what}"


def _validation_text(training: Training, data_dir: str | Path | None) -> TextSource | None:
    """The validation split of the sources that have one; a file is the same for every split."""
    from ..data.sources import SOURCES

    if training.dataset not in SOURCES:
        return None
    try:
        return load_text(training.dataset, "validation", data_dir)
    except ValueError:  # the source has no such split
        return None


def _cast(model: nn.Module, dtypes: dict[str, torch.dtype]) -> None:
    for name, parameter in model.named_parameters():
        if name in dtypes:
            parameter.data = parameter.data.to(dtypes[name])


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Makes the folder of a run's Trainer, or goes on with it if it is of the same run."""
    path = folder / _SETTINGS
    wanted = json.loads(json.dumps(settings))
    if path.is_file():
        try:
            held = json.loads(path.read_text("utf-8"))
        except ValueError:
            held = None
        if held != wanted:
            raise ValueError(
                f"finetune: checkpoint and settings must be those of the run to go on with in {folder}, got others; "
                "remove that folder to begin anew"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(wanted), "utf-8")
    partial.replace(path)
