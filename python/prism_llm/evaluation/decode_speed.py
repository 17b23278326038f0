"""Greedy generation, one token at a time, and its speed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

_WARM_UP_TOKENS = 8


@dataclass(frozen=True)
class DecodeSpeed:
    """Tokens per second of greedy generation with a key-value cache, batch 1; the prompt's prefill is not timed.

    Attributes:
        tokens_per_second: of the median run. runs: seconds of every timed run.
        prompt_tokens, new_tokens: lengths. threads: torch threads.
    """

    tokens_per_second: float
    runs: list[float]
    prompt_tokens: int
    new_tokens: int
    threads: int
    device: str

    @property
    def protocol(self) -> str:
        return (
            f"greedy decoding, batch 1, {self.prompt_tokens} prompt tokens (prefill not timed), {self.new_tokens} new "
            f"tokens, median of {len(self.runs)} runs after a warm-up, {self.device}, {self.threads} threads"
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"protocol": self.protocol}

    def __str__(self) -> str:
        return f"{self.tokens_per_second:.1f} tokens/s ({self.protocol})"


def greedy_tokens(model: Any, prompt: Tensor, max_new_tokens: int) -> Iterator[int]:
    """Yields the most likely next tokens, one by one; the caller stops at an end token.

    Args:
        model: a causal language model of transformers.
        prompt: int64 [tokens], at least one.
        max_new_tokens: how many to yield.

    Raises:
        ValueError: an empty prompt, or a count below 1.
    """
    if prompt.dim() != 1 or prompt.numel() < 1:
        raise ValueError(
            f"greedy_tokens: prompt must be a vector of at least one token, got shape {list(prompt.shape)}"
        )
    if max_new_tokens < 1:
        raise ValueError(f"greedy_tokens: max_new_tokens must be at least 1, got {max_new_tokens}")
    return _greedy(model, prompt, max_new_tokens)


def _greedy(model: Any, prompt: Tensor, max_new_tokens: int) -> Iterator[int]:
    ids = prompt[None].to(next(model.parameters()).device)
    cache = None
    for _ in range(max_new_tokens):
        # Entered anew for each token: a generator that yields inside it would switch its consumer's mode too.
        with torch.inference_mode():
            output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = output.past_key_values
            ids = output.logits[:, -1:].argmax(-1)
            token = int(ids)
        yield token


def _timed_run(model: Any, prompt: Tensor, new_tokens: int) -> float:
    tokens = greedy_tokens(model, prompt, new_tokens + 1)
    next(tokens)
    start = time.perf_counter()
    for _ in tokens:
        pass
    return time.perf_counter() - start


def decode_speed(
    model: Any, prompt: Tensor, *, new_tokens: int = 64, runs: int = 3, budget_s: float = 60.0
) -> DecodeSpeed:
    """Measures greedy decoding.

    Args:
        model: a causal language model in evaluation mode.
        prompt: int64 [tokens]; tokens and `new_tokens` together must fit the model.
        new_tokens: timed tokens per run, after the first one, which belongs to the prefill; fewer where a run would
            exceed `budget_s` (the result says how many).
        runs: timed runs, after a short one that warms up.
        budget_s: seconds after which no further run starts (one always does).

    Raises:
        ValueError: a count below 1 or an empty prompt.
    """
    if new_tokens < 1 or runs < 1:
        raise ValueError(f"decode_speed: new_tokens and runs must be at least 1, got {new_tokens} and {runs}")
    deadline = time.perf_counter() + budget_s
    fewest = min(new_tokens, _WARM_UP_TOKENS)
    seconds_per_token = _timed_run(model, prompt, fewest) / fewest
    new_tokens = max(fewest, min(new_tokens, int(budget_s / seconds_per_token)))
    timed: list[float] = []
    while len(timed) < runs and (not timed or time.perf_counter() < deadline):
        timed.append(_timed_run(model, prompt, new_tokens))
    return DecodeSpeed(
        tokens_per_second=new_tokens / statistics.median(timed),
        runs=timed,
        prompt_tokens=prompt.numel(),
        new_tokens=new_tokens,
        threads=torch.get_num_threads(),
        device=str(next(model.parameters()).device),
    )
