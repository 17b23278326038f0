"""Fine-tuning with fixed masks, by transformers' Trainer: gradient, weight and moments of a pruned weight stay 0.

The gradient of a pruned weight is replaced by 0 before the optimizer sees it, so AdamW's moments stay 0, its update is
0, and decay of 0 is 0. Training is in float32, whatever the stored dtype: steps of 2e-5 vanish in bfloat16 weights.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .expand import Sparse

Progress = Callable[[int, int, str], object]

_STATE = "trainer_state.json"


@dataclass(frozen=True)
class Training:
    """How to fine-tune.

    Attributes:
        epochs: passes over the text. max_steps: optimizer steps at most, or None.
        learning_rate: peak of AdamW's linear schedule. weight_decay: of AdamW.
        batch_size: sequences per step on the device; accumulation: such batches per optimizer step.
        dataset: a source of `prism_llm.data.load_text` or a file. seqlen: tokens per sequence; the model bounds it.
        eval_steps: optimizer steps between evaluations, each with a checkpoint; at least one evaluation per epoch.
        patience: stop after so many evaluations without a better loss; 0 never stops early.
        validation_share: part of the text held out where its source has no validation split.
        seed: of the order of sequences and of dropout.
        autocast: products in bfloat16 (for devices where that is fast); weights and moments stay float32.

    Raises:
        ValueError: naming field, rule and value.
    """

    epochs: float = 1.0
    max_steps: int | None = None
    learning_rate: float = 2e-5
    weight_decay: float = 0.0
    batch_size: int = 4
    accumulation: int = 4
    dataset: str = "stdlib"
    seqlen: int = 1024
    eval_steps: int = 100
    patience: int = 3
    validation_share: float = 0.05
    seed: int = 0
    autocast: bool = False

    def __post_init__(self) -> None:
        def require(condition: bool, name: str, rule: str) -> None:
            if not condition:
                raise ValueError(f"Training: {name} must {rule}, got {getattr(self, name)}")

        require(0 < self.epochs < math.inf, "epochs", "be positive and finite")
        require(self.max_steps is None or self.max_steps >= 1, "max_steps", "be at least 1")
        require(0 < self.learning_rate < math.inf, "learning_rate", "be positive and finite")
        require(0 <= self.weight_decay < 1, "weight_decay", "be in [0, 1)")
        for name, least in (("batch_size", 1), ("accumulation", 1), ("seqlen", 2), ("eval_steps", 1), ("patience", 0)):
            require(getattr(self, name) >= least, name, f"be at least {least}")
        require(0 < self.validation_share < 1, "validation_share", "be in (0, 1)")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class TrainingResult:
    """What training did.

    Attributes:
        loss_before, loss_after: mean evaluation loss before, and of the weights that are kept.
        best_step: the optimizer step that gave them; 0 where no evaluation was better than the start.
        steps: optimizer steps done. stopped_early: whether patience ran out.
    """

    loss_before: float
    loss_after: float
    best_step: int
    steps: int
    stopped_early: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def train(
    model: nn.Module,
    sparse: Mapping[str, Sparse],
    windows: Tensor,
    validation: Tensor,
    training: Training,
    folder: Path,
    *,
    progress: Progress | None = None,
) -> TrainingResult:
    """Trains `model` (dense, float32, from `expand_`) in place and leaves it with the best weights.

    Args:
        windows, validation: int64 token ids [num, seqlen].
        folder: for the Trainer's checkpoints; a run that died goes on from the last complete one in it.
        progress: called with steps done, all steps, and a note.

    Raises:
        RuntimeError: the loss is not finite.
    """
    with preserved_global_state():
        trainer = make_trainer(model, sparse, windows, validation, training, folder, progress)
        before = _evaluate(trainer)
        start = {name: p.detach().clone() for name, p in model.named_parameters()}
        trainer.train(resume_from_checkpoint=_last_checkpoint(folder))
        state = trainer.state
        after, best = state.best_metric, state.best_global_step or 0
        if after is None or not math.isfinite(after):
            raise RuntimeError(
                f"train: the evaluation loss must be finite, got {after} after {state.global_step} steps"
            )
        loaded = _evaluate(trainer)
        if not math.isclose(loaded, after, rel_tol=1e-3):
            raise RuntimeError(f"train: the best weights must come back from {folder} with loss {after}, got {loaded}")
        if after >= before:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(start[name])
            after, best = before, 0
    require_pruned_zero(model, sparse)
    return TrainingResult(before, after, best, state.global_step, state.global_step < state.max_steps)


def make_trainer(
    model: nn.Module,
    sparse: Mapping[str, Sparse],
    windows: Tensor,
    validation: Tensor,
    training: Training,
    folder: Path,
    progress: Progress | None = None,
) -> Any:
    """The transformers Trainer of `train`, with gradient masks in place. It seeds the global generators: see
    `preserved_global_state`."""
    try:
        import accelerate  # noqa: F401  (the Trainer needs it, and says so less clearly)
    except ImportError as error:
        raise ModuleNotFoundError(
            "train: fine-tuning needs the package accelerate (pip install 'prism-kernels[train]')"
        ) from error
    from transformers import EarlyStoppingCallback, PrinterCallback

    mask_gradients(model, sparse)
    callbacks: list[Any] = [_report_to(progress)]
    if training.patience:
        callbacks.append(EarlyStoppingCallback(training.patience))
    on_cpu = next(model.parameters()).device.type == "cpu"
    trainer = _trainer_class(folder)(
        model=model,
        args=_arguments(training, windows.shape[0], folder, on_cpu),
        train_dataset=_Windows(windows),
        eval_dataset=_Windows(validation),
        data_collator=_collate,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(training: Training, num_windows: int, folder: Path, on_cpu: bool) -> Any:
    from transformers import TrainingArguments

    steps_per_epoch = max(1, math.ceil(num_windows / training.batch_size) // training.accumulation)
    total = training.max_steps or max(1, int(training.epochs * steps_per_epoch))
    every = min(training.eval_steps, steps_per_epoch, total)
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=training.epochs,
        max_steps=-1 if training.max_steps is None else training.max_steps,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=training.batch_size,
        gradient_accumulation_steps=training.accumulation,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        prediction_loss_only=True,
        bf16=training.autocast,
        seed=training.seed,
        data_seed=training.seed,
        use_cpu=on_cpu,
        dataloader_pin_memory=not on_cpu,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to=[],
    )


def _trainer_class(folder: Path) -> Any:
    """A Trainer whose checkpoints keep the model's own names and hold tied tensors once."""
    from safetensors.torch import save_model
    from transformers import Trainer

    class WholeModelTrainer(Trainer):
        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            # The model's own `save_pretrained` renames the tensors of models whose layout was changed (experts).
            target = Path(output_dir or folder)
            target.mkdir(parents=True, exist_ok=True)
            save_model(self.accelerator.unwrap_model(self.model), str(target / "model.safetensors"))

        def _issue_warnings_after_load(self, load_result: Any) -> None:
            # Trainer warns of tied tensors, which came in by their other names; anything else is no reason to go on.
            tensors = self.model.state_dict(keep_vars=True)  # type: ignore[union-attr]
            loaded = {id(tensor) for name, tensor in tensors.items() if name not in load_result.missing_keys}
            missing = [name for name in load_result.missing_keys if id(tensors[name]) not in loaded]
            if missing or load_result.unexpected_keys:
                raise RuntimeError(
                    f"train: checkpoints in {folder} must hold the tensors of the model, got none for {missing} and "
                    f"others for {load_result.unexpected_keys}"
                )

    return WholeModelTrainer


def mask_gradients(model: nn.Module, sparse: Mapping[str, Sparse]) -> list[Any]:
    """Hooks that make the gradient of every pruned weight exactly 0, even where it is not finite."""
    handles = []
    for name, how in sparse.items():
        weight = model.get_parameter(f"{name}.weight")
        mask = how.mask.to(weight.device)
        handles.append(weight.register_hook(lambda gradient, mask=mask: torch.where(mask, gradient, 0.0)))
    return handles


def require_pruned_zero(model: nn.Module, sparse: Mapping[str, Sparse]) -> None:
    """Raises RuntimeError where a pruned weight is not exactly 0."""
    for name, how in sparse.items():
        weight = model.get_parameter(f"{name}.weight").detach()
        stray = int((weight[~how.mask.to(weight.device)] != 0).sum())
        if stray:
            raise RuntimeError(f"train: pruned weights of {name} must stay 0, got {stray} others")


@contextmanager
def preserved_global_state() -> Iterator[None]:
    """The generators of Python, numpy and torch are after what they were before: the Trainer seeds all of them."""
    import numpy

    python, numbers = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        numpy.random.set_state(numbers)


class _Windows(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __init__(self, windows: Tensor) -> None:
        self._windows = windows

    def __len__(self) -> int:
        return self._windows.shape[0]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self._windows[index]}


def _collate(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    ids = torch.stack([item["input_ids"] for item in items])
    return {"input_ids": ids, "labels": ids}


def _report_to(progress: Progress | None) -> Any:
    """Reports progress, and has the last step evaluated and saved like the others: it may be the best."""
    from transformers import TrainerCallback

    class Report(TrainerCallback):
        note = ""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            shown = {key: logs[key] for key in ("loss", "eval_loss") if logs and key in logs}
            if shown:
                self.note = ", ".join(f"{key} {value:.4f}" for key, value in shown.items())

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if progress is not None:
                progress(state.global_step, state.max_steps, self.note)
            if state.global_step >= state.max_steps:
                control.should_evaluate = control.should_save = True

    return Report()


def _evaluate(trainer: Any) -> float:
    loss = trainer.evaluate()["eval_loss"]
    if not math.isfinite(loss):
        raise RuntimeError(f"train: the evaluation loss must be finite, got {loss} before training")
    return loss


def _last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint of the Trainer in `folder`; what a killed run left half-written goes."""
    complete: dict[int, Path] = {}
    for path in folder.glob("checkpoint-*"):
        number = path.name.removeprefix("checkpoint-")
        if not number.isdigit():
            continue
        if _is_complete(path):
            complete[int(number)] = path
        else:
            shutil.rmtree(path)
    return str(complete[max(complete)]) if complete else None


def _is_complete(path: Path) -> bool:
    # The Trainer writes its state last.
    try:
        json.loads((path / _STATE).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return True
