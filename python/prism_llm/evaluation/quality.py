"""Perplexity, and how far a model agrees with another one on the same windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .windows import EvaluationText

# Logits dominate the memory of an evaluation: 2^25 values are 128 MB in float32.
_LOGITS_PER_BATCH = 2**25

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Perplexity:
    """Perplexity with its protocol.

    Attributes:
        ppl: exp(nll / tokens). nll: sum of negative log likelihoods, natural logarithm.
        tokens: predicted tokens, windows * (seqlen - 1).
        bits_per_byte: bits that the model needs per byte of text (comparable across tokenizers), or None.
        protocol: how it was measured, in one line.
    """

    ppl: float
    nll: float
    tokens: int
    windows: int
    seqlen: int
    source: str
    text_sha256: str
    bits_per_byte: float | None
    protocol: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        bits = "" if self.bits_per_byte is None else f", {self.bits_per_byte:.4f} bits per byte"
        return f"perplexity {self.ppl:.4f}{bits} ({self.tokens} predicted tokens; {self.protocol})"


@dataclass(frozen=True)
class Agreement:
    """How often two models choose the same next token on the same windows.

    Attributes:
        top1: share of positions whose most likely next token is the same.
        mean_kl: mean over positions of KL(reference || model) in nats, or None where it was not measured.
        positions: windows * seqlen.
    """

    top1: float
    mean_kl: float | None
    positions: int
    protocol: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        kl = "" if self.mean_kl is None else f", mean KL {self.mean_kl:.4f} nats"
        return f"top-1 agreement {100 * self.top1:.2f} %{kl} ({self.positions} positions; {self.protocol})"


def perplexity(model: Any, text: EvaluationText, *, progress: Progress | None = None) -> Perplexity:
    """Perplexity of a causal language model on `text`, with logits and sums in float32 and float64.

    Raises:
        ValueError: a logit is not finite.
    """
    nll = 0.0
    for ids, logits in _forwards(model, text, progress):
        nll += _nll(logits, ids)
    return _perplexity(nll, text)


def agreement(
    model: Any, reference: Any, text: EvaluationText, *, kl: bool = False, progress: Progress | None = None
) -> Agreement:
    """Runs both models over the same windows. `kl` also compares the whole distributions."""
    same, divergence = 0, 0.0
    pairs = zip(_forwards(model, text, progress), _forwards(reference, text, None), strict=True)
    for (_, ours), (_, theirs) in pairs:
        same += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
        if kl:
            log_ours, log_theirs = ours.float().log_softmax(-1), theirs.float().log_softmax(-1)
            divergence += float(F.kl_div(log_ours, log_theirs, reduction="sum", log_target=True))
    positions = text.windows.numel()
    return Agreement(same / positions, divergence / positions if kl else None, positions, text.protocol)


def top1_tokens(model: Any, text: EvaluationText, *, progress: Progress | None = None) -> tuple[Perplexity, Tensor]:
    """The perplexity, and the most likely next token at every position, int32 [windows, seqlen], of one pass.

    The agreement of two models is the share of equal entries: a reference that many models are compared with runs once.
    """
    nll, chosen = 0.0, []
    for ids, logits in _forwards(model, text, progress):
        nll += _nll(logits, ids)
        chosen.append(logits.argmax(-1).int().cpu())
    return _perplexity(nll, text), torch.cat(chosen)


@torch.inference_mode()
def _forwards(model: Any, text: EvaluationText, progress: Progress | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (ids [b, seqlen], logits [b, seqlen, vocabulary]) batch by batch."""
    device = next(model.parameters()).device
    total, seqlen = text.windows.shape
    vocabulary = model.config.get_text_config().vocab_size
    batch = max(1, _LOGITS_PER_BATCH // (seqlen * vocabulary))
    training = model.training
    model.eval()
    try:
        for start in range(0, total, batch):
            ids = text.windows[start : start + batch].to(device)
            yield ids, model(input_ids=ids, use_cache=False).logits
            if progress is not None:
                progress(min(start + batch, total), total)
    finally:
        model.train(training)


def _nll(logits: Tensor, ids: Tensor) -> float:
    predicted = logits[:, :-1].flatten(0, 1).float()
    # Per window in float32, over windows in float64.
    losses = F.cross_entropy(predicted, ids[:, 1:].flatten(), reduction="none")
    total = float(losses.double().sum())
    if not math.isfinite(total):
        raise ValueError(f"perplexity: logits must be finite, got a negative log likelihood of {total}")
    return total


def _perplexity(nll: float, text: EvaluationText) -> Perplexity:
    windows, seqlen = text.windows.shape
    tokens = windows * (seqlen - 1)
    mean = nll / tokens
    bits = None
    if text.text_bytes is not None:
        # Every window predicts all but its first token, hence the mean over predicted tokens stands for all of them.
        bits = mean / math.log(2) * windows * seqlen / text.text_bytes
    return Perplexity(
        ppl=math.exp(min(mean, 700.0)),
        nll=nll,
        tokens=tokens,
        windows=windows,
        seqlen=seqlen,
        source=text.source,
        text_sha256=text.sha256,
        bits_per_byte=bits,
        protocol=text.protocol,
    )
