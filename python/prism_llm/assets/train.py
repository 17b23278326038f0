r"""Trains the bundled model from text that every Python installation holds.

    python -m prism_llm.assets.train --out tiny-llama --work work \
        --extra-text wikitext-2/valid.txt

A killed run goes on with ``--resume``. The decay of the learning rate starts by step count, or
earlier: when ``--max-minutes`` would not leave room for it, or on SIGTERM. A run therefore always
ends with an annealed model. Interrupt (SIGINT) stops at once.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prism_llm.assets.training_state import load_training_state, save_training_state
from prism_llm.data.stdlib import stdlib_documents, stdlib_text

logger = logging.getLogger("prism_llm.assets.train")

VOCABULARY_SIZE = 4096
SEQUENCE_LENGTH = 512
BOS_TOKEN, EOS_TOKEN = "<s>", "</s>"
CHECKPOINT_NAME = "checkpoint.safetensors"
REPORT_EVERY = 20


@dataclass(frozen=True)
class TrainingOptions:
    """What decides the result of a run. Learning rates are peaks; lengths are in steps."""

    steps: int = 4000
    batch_size: int = 8
    muon_lr: float = 0.02
    adamw_lr: float = 2e-3
    warmup: int = 100
    decay: int = 1100
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    seed: int = 20260
    evaluate_every: int = 500
    evaluation_windows: int = 48
    max_minutes: float = 52.0

    def __post_init__(self) -> None:
        if self.evaluate_every < 1 or self.evaluate_every % REPORT_EVERY:
            raise ValueError(
                f"TrainingOptions: evaluate_every must be a positive multiple of {REPORT_EVERY}, "
                f"got {self.evaluate_every}"
            )


@dataclass
class Progress:
    """Where a run stands; stored in every checkpoint."""

    step: int = 0
    seconds: float = 0.0
    decay_start: int = 0
    log: list[dict[str, float]] = field(default_factory=list)


def train_tokenizer(documents: Sequence[str]):
    """Train a byte-level BPE tokenizer (lossless on any text; adds no special tokens by itself).

    Returns:
        A ``transformers.PreTrainedTokenizerFast`` with `VOCABULARY_SIZE` entries.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[BOS_TOKEN, EOS_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS_TOKEN,
        eos_token=EOS_TOKEN,
        pad_token=EOS_TOKEN,
        model_max_length=SEQUENCE_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def build_model(seed: int):
    """Return a fresh float32 ``LlamaForCausalLM`` of 4.2 M parameters (grouped-query attention)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        intermediate_size=768,
        max_position_embeddings=SEQUENCE_LENGTH,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def pack_epoch(documents: Sequence[Tensor], epoch: int, seed: int) -> Tensor:
    """Shuffle the documents, join them, cut the stream into rows and shuffle the rows.

    Args:
        documents: int32 token ids of each document, ``<s>`` and ``</s>`` included.
        epoch: number of the pass; it also moves the cuts, so no two passes share their windows.
        seed: seed of the run.

    Returns:
        int32 ``[rows, SEQUENCE_LENGTH + 1]``: inputs and, shifted by one, targets.
    """
    generator = torch.Generator().manual_seed(seed + epoch)
    order = torch.randperm(len(documents), generator=generator).tolist()
    stream = torch.cat([documents[index] for index in order])
    start = int(torch.randint(SEQUENCE_LENGTH, (1,), generator=generator))
    rows = stream[start:].unfold(0, SEQUENCE_LENGTH + 1, SEQUENCE_LENGTH)
    return rows[torch.randperm(rows.shape[0], generator=generator)].contiguous()


class Batches:
    """Batches by step number, so that a resumed run sees what an unbroken one would have seen."""

    def __init__(self, documents: Sequence[Tensor], options: TrainingOptions) -> None:
        self._documents, self._options = documents, options
        total = sum(document.numel() for document in documents)
        # A random start may cost one row; the count must not depend on the epoch.
        self.steps_per_epoch = (total // SEQUENCE_LENGTH - 2) // options.batch_size
        if self.steps_per_epoch < 1:
            raise ValueError(f"Batches: documents must fill one batch, got {total} tokens")
        self._epoch, self._rows = -1, torch.empty(0)

    def __getitem__(self, step: int) -> Tensor:
        """Return the int64 ``[batch_size, SEQUENCE_LENGTH + 1]`` batch of one step."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._rows = pack_epoch(self._documents, epoch, self._options.seed)
        size = self._options.batch_size
        return self._rows[index * size : (index + 1) * size].long()


def learning_rate_scale(step: int, decay_start: int, options: TrainingOptions) -> float:
    """Warmup, stable, then decay as 1 - sqrt (reaches 0 after `options.decay` steps)."""
    warm = min(1.0, (step + 1) / options.warmup)
    decayed = min(1.0, max(0, step - decay_start) / options.decay)
    return warm * (1.0 - math.sqrt(decayed))


def build_optimizers(model: nn.Module, options: TrainingOptions) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices; AdamW for the embedding and the norms, where it belongs."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and "embed_tokens" not in name
        (matrices if is_matrix else others).append(parameter)
    muon = torch.optim.Muon(matrices, lr=options.muon_lr, weight_decay=options.weight_decay)
    adamw = torch.optim.AdamW(others, lr=options.adamw_lr, betas=(0.9, 0.95), weight_decay=0.0)
    for optimizer in (muon, adamw):
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return [muon, adamw]


def held_out_loss(model: nn.Module, windows: Tensor, batch_size: int = 8) -> float:
    """Return the mean next-token loss in nats over int64 ``[windows, length]`` windows."""
    total = 0.0
    with torch.inference_mode():
        for batch in windows.split(batch_size):
            logits = model(input_ids=batch, use_cache=False).logits[:, :-1].float()
            losses = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum")
            total += float(losses)
    return total / (windows.shape[0] * (windows.shape[1] - 1))


def held_out_windows(tokenizer, split: str = "test") -> tuple[Tensor, float]:
    """Cut a split of `stdlib` into the windows that the model card reports on.

    Returns:
        int64 ``[windows, SEQUENCE_LENGTH]``, and the UTF-8 bytes per token of the whole split.
    """
    text = stdlib_text(split)
    ids = torch.tensor(tokenizer(text, verbose=False)["input_ids"])
    count = ids.numel() // SEQUENCE_LENGTH
    windows = ids[: count * SEQUENCE_LENGTH].view(count, SEQUENCE_LENGTH)
    return windows, len(text.encode("utf-8")) / ids.numel()


def _compiled_loss(model: nn.Module):
    """Compile the loss of an int64 ``[batch, length + 1]`` batch; bfloat16 matrix products."""

    def loss(batch: Tensor) -> Tensor:
        logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        return F.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())

    return torch.compile(loss, dynamic=False)


def _train_step(model: nn.Module, loss_of, optimizers, batch: Tensor, clip_norm: float) -> float:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(batch)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip_norm, error_if_nonfinite=True)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


class _DecayRequest:
    """Set by SIGTERM: whoever ends the run early still gets an annealed model."""

    def __init__(self) -> None:
        self.wanted = False
        signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        self.wanted = True


class _Clock:
    """Wall seconds of a run, and a smoothed number of seconds per step."""

    def __init__(self, progress: Progress) -> None:
        self._mark, self._step, self._intervals = time.monotonic(), progress.step, 0
        self.seconds_per_step = 0.0

    @property
    def is_settled(self) -> bool:
        """Whether the speed is known well enough to decide by it."""
        return self._intervals >= 5

    def update(self, progress: Progress) -> None:
        now = time.monotonic()
        latest = (now - self._mark) / (progress.step - self._step)
        progress.seconds += now - self._mark
        self._mark, self._step = now, progress.step
        self._intervals += 1
        # The first interval holds the compilation, so the second one starts the average anew.
        known = self.seconds_per_step
        self.seconds_per_step = latest if self._intervals <= 2 else 0.8 * known + 0.2 * latest


def _must_decay(progress: Progress, clock: _Clock, options: TrainingOptions) -> bool:
    # The margin of 2 % pays for a machine that slows down late.
    needed = progress.seconds + 1.02 * options.decay * clock.seconds_per_step
    return clock.is_settled and progress.step > options.warmup and needed >= 60.0 * options.max_minutes


def train(
    model: nn.Module,
    batches: Batches,
    windows: Tensor,
    options: TrainingOptions,
    work: Path,
    resume: bool,
) -> Progress:
    """Train `model` in place.

    Args:
        model: float32 model.
        batches: training batches by step.
        windows: int64 ``[windows, length]`` held-out windows for the log.
        options: the run's options.
        work: folder of the checkpoint.
        resume: go on from the checkpoint in `work`.

    Returns:
        The progress with its log: step, tokens, losses in nats, learning rate (Muon), seconds.
    """
    optimizers = build_optimizers(model, options)
    progress = Progress(decay_start=options.steps - options.decay)
    if resume:
        progress = Progress(**load_training_state(work / CHECKPOINT_NAME, model, optimizers))
    loss_of, request, clock, recent = _compiled_loss(model), _DecayRequest(), _Clock(progress), []
    while progress.step < (end := progress.decay_start + options.decay):
        scale = learning_rate_scale(progress.step, progress.decay_start, options)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = group["peak_lr"] * scale
        batch = batches[progress.step]
        recent.append(_train_step(model, loss_of, optimizers, batch, options.clip_norm))
        progress.step += 1
        if progress.step % REPORT_EVERY and progress.step < end:
            continue
        clock.update(progress)
        rate = clock.seconds_per_step
        early = request.wanted or _must_decay(progress, clock, options)
        if early and progress.step < progress.decay_start:
            progress.decay_start = progress.step
            end = progress.step + options.decay
        _log_speed(progress, end, _mean(recent[-REPORT_EVERY:]), rate, options)
        if progress.step % options.evaluate_every == 0 or progress.step == end:
            _log_evaluation(progress, model, windows, _mean(recent), scale, options)
            recent.clear()
            save_training_state(work / CHECKPOINT_NAME, model, optimizers, asdict(progress))
    return progress


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _log_speed(progress: Progress, end: int, loss: float, seconds_per_step: float, options: TrainingOptions) -> None:
    logger.info(
        "step %d/%d  decay from %d  loss %.4f  %.0f tokens/s  ETA %.1f min",
        progress.step,
        end,
        progress.decay_start,
        loss,
        options.batch_size * SEQUENCE_LENGTH / seconds_per_step,
        (end - progress.step) * seconds_per_step / 60,
    )


def _log_evaluation(
    progress: Progress,
    model: nn.Module,
    windows: Tensor,
    loss: float,
    scale: float,
    options: TrainingOptions,
) -> None:
    entry = {
        "step": progress.step,
        "tokens": progress.step * options.batch_size * SEQUENCE_LENGTH,
        "train_loss": round(loss, 4),
        "held_out_loss": round(held_out_loss(model, windows), 4),
        "lr": round(options.muon_lr * scale, 6),
        "seconds": round(progress.seconds, 1),
    }
    progress.log.append(entry)
    logger.info("%s", json.dumps(entry))


def encode_documents(tokenizer, documents: Sequence[str]) -> list[Tensor]:
    """Return int32 ids of each document between ``<s>`` and ``</s>``."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    encoded = tokenizer(list(documents), verbose=False)["input_ids"]
    return [torch.tensor([bos, *ids, eos], dtype=torch.int32) for ids in encoded]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, then write the model folder and its card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--extra-text", type=Path, action="append", default=[])
    parser.add_argument("--resume", action="store_true")
    for name, default in asdict(TrainingOptions()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parsed = parser.parse_args(arguments)
    options = TrainingOptions(**{name: getattr(parsed, name) for name in asdict(TrainingOptions())})
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parsed.work.mkdir(parents=True, exist_ok=True)

    texts = [text for _, text in stdlib_documents("train")]
    texts += [path.read_text(encoding="utf-8") for path in parsed.extra_text]
    tokenizer = train_tokenizer(texts)
    model = build_model(options.seed)
    windows, _ = held_out_windows(tokenizer)
    spread = torch.linspace(0, windows.shape[0] - 1, options.evaluation_windows).long()
    batches = Batches(encode_documents(tokenizer, texts), options)
    logger.info("%s; %d steps per epoch", options, batches.steps_per_epoch)
    progress = train(model, batches, windows[spread], options, parsed.work, parsed.resume)
    from prism_llm.assets.model_card import write_model_folder

    write_model_folder(parsed.out, model, tokenizer, options, progress, parsed.extra_text)


if __name__ == "__main__":
    main()
