"""Writes the folder of the bundled model: weights, tokenizer, log and model card."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from prism_llm.assets import train as training
from prism_llm.data.stdlib import stdlib_documents, stdlib_text

# Few enough for a unit test, which recomputes what the card records.
CHECKED_WINDOWS = 8

_CARD = """\
# tiny-llama

A Llama of {parameters:,} parameters (hidden {hidden}, {layers} layers, {heads} heads, {kv_heads}
key-value heads, tied embeddings, context {context}), trained from nothing on the source text of
Python's standard library. It is stored in bfloat16 and is small on purpose: it lets every command,
test and example run offline on a laptop, on a model whose weights are trained rather than random.
It is no code assistant.

## Quality

| measure | value |
|---|---|
| held-out perplexity per token | {perplexity:.3f} |
| held-out bits per byte | {bits_per_byte:.4f} |
| held-out windows | {windows} |
| perplexity on {checked} windows | {checked_perplexity:.3f} |
| held-out bytes per token | {bytes_per_token:.4f} |
| held-out sha256 | {held_out_sha} |

Protocol: the stored bfloat16 weights, computed in float32. The held-out documents
(`prism_llm.data.stdlib.stdlib_text("test")`: a tenth of the modules, chosen by a hash of their
paths) are joined with a blank line, tokenized without special tokens and cut into non-overlapping
windows of {context} tokens; each window predicts its last {predicted} tokens from the window alone,
and the tail is dropped. Bits per byte are the mean loss in bits over the bytes per token of the
whole text. The {checked} windows lie evenly spread, first and last included. Another Python version
holds another text (see the sha256) and gives other numbers.

## Training

| | |
|---|---|
| steps | {steps} |
| tokens | {tokens:,} in sequences of {context}, {epochs:.2f} passes |
| minutes | {minutes:.0f} on two CPU cores shared with other work |
| optimizer | Muon (hidden matrices, {muon_lr}), AdamW (embedding, norms, {adamw_lr}) |
| schedule | warmup {warmup}, stable, 1 - sqrt decay from step {decay_start} on |
| seed | {seed} |
| Python, torch, transformers | {versions} |

```
{command}
```

`training_log.jsonl` holds the losses in nats (held-out: {log_windows} windows), the learning rate
of Muon and the seconds since the start.

| text | documents | bytes | sha256 |
|---|---|---|---|
{texts}

## Licences

The standard library's text stands under the PSF licence (Python Software Foundation License
Version 2); the WikiText-2 text stands under CC BY-SA (Wikipedia authors). Neither text is part of
this folder; the held-out part was never trained on.
"""


def evaluate_held_out(model, tokenizer) -> dict[str, float | int | str]:
    """Return the measures of the card for a float32 model; keys as in the card's template."""
    windows, bytes_per_token = training.held_out_windows(tokenizer)
    loss = training.held_out_loss(model, windows)
    return {
        "perplexity": math.exp(loss),
        "bits_per_byte": loss / math.log(2) / bytes_per_token,
        "windows": windows.shape[0],
        "checked": CHECKED_WINDOWS,
        "checked_perplexity": math.exp(training.held_out_loss(model, checked_windows(windows))),
        "bytes_per_token": bytes_per_token,
        "held_out_sha": _sha256(stdlib_text("test")),
    }


def checked_windows(windows: torch.Tensor) -> torch.Tensor:
    """Pick the `CHECKED_WINDOWS` evenly spread rows of ``[windows, length]``."""
    return windows[torch.linspace(0, windows.shape[0] - 1, CHECKED_WINDOWS).long()]


def write_model_folder(
    out: Path,
    model,
    tokenizer,
    options: training.TrainingOptions,
    progress: training.Progress,
    extra_text: Sequence[Path],
) -> None:
    """Write the model (converted to bfloat16 in place), tokenizer, log and card to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    model.eval().to(torch.bfloat16)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    # safetensors creates its file for the owner alone; a package is read by everyone.
    (out / "model.safetensors").chmod(0o644)
    lines = [json.dumps(entry) + "\n" for entry in progress.log]
    (out / "training_log.jsonl").write_text("".join(lines), encoding="utf-8")
    measures = evaluate_held_out(model.float(), tokenizer)
    facts = _training_facts(model, tokenizer, options, progress, extra_text)
    (out / "README.md").write_text(_CARD.format(**measures, **facts), encoding="utf-8")


def _training_facts(model, tokenizer, options, progress, extra_text) -> dict[str, object]:
    import transformers

    config = model.config
    tokens = progress.step * options.batch_size * training.SEQUENCE_LENGTH
    texts = [text for _, text in stdlib_documents("train")]
    texts += [path.read_text(encoding="utf-8") for path in extra_text]
    epoch_tokens = sum(ids.numel() for ids in training.encode_documents(tokenizer, texts))
    # Folder names above the last one belong to the machine that trained, not to the record.
    names = ["/".join(path.parts[-2:]) for path in extra_text]
    command = ["python -m prism_llm.assets.train --out tiny-llama --work work"]
    command += [f"--extra-text {name}" for name in names]
    command += [f"--{name.replace('_', '-')} {value}" for name, value in _changed(options).items()]
    return {
        "parameters": model.num_parameters(),
        "hidden": config.hidden_size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "context": training.SEQUENCE_LENGTH,
        "predicted": training.SEQUENCE_LENGTH - 1,
        "steps": progress.step,
        "tokens": tokens,
        "epochs": tokens / epoch_tokens,
        "minutes": progress.seconds / 60,
        "muon_lr": options.muon_lr,
        "adamw_lr": options.adamw_lr,
        "warmup": options.warmup,
        "decay_start": progress.decay_start,
        "seed": options.seed,
        "versions": f"{platform.python_version()}, {torch.__version__}, {transformers.__version__}",
        "command": " \\\n    ".join(command),
        "log_windows": options.evaluation_windows,
        "texts": "\n".join(_text_rows(names, extra_text)),
    }


def _changed(options: training.TrainingOptions) -> dict[str, object]:
    defaults = asdict(training.TrainingOptions())
    return {name: value for name, value in asdict(options).items() if value != defaults[name]}


def _text_rows(names: Sequence[str], extra_text: Sequence[Path]) -> list[str]:
    rows = []
    for split, label in (("train", "stdlib, train"), ("test", "stdlib, test (held out)")):
        rows.append((label, len(stdlib_documents(split)), stdlib_text(split)))
    for name, path in zip(names, extra_text, strict=True):
        rows.append((name, 1, path.read_text(encoding="utf-8")))
    return [f"| {label} | {count} | {len(text.encode('utf-8')):,} | {_sha256(text)} |" for label, count, text in rows]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
