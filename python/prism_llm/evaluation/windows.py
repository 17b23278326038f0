"""The text of an evaluation, cut once so that every model reads the same tokens."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from prism_llm.data.sources import TextSource

MAX_SEQLEN = 2048


@dataclass(frozen=True)
class EvaluationText:
    """Windows of token ids, and everything that makes a number measured on them comparable.

    Attributes:
        windows: int64 [windows, seqlen], consecutive, without overlap; the tail is dropped.
        available: how many windows the whole text gives.
        source: name and split of the text, and how it was joined.
        sha256: digest of the whole text in UTF-8.
        text_bytes: UTF-8 bytes of the text inside the windows; None where the tokens do not spell the text exactly.
    """

    windows: Tensor = field(repr=False)
    available: int
    source: str
    sha256: str
    text_bytes: int | None

    @property
    def seqlen(self) -> int:
        return self.windows.shape[1]

    @property
    def protocol(self) -> str:
        """One line that a table needs beside its numbers."""
        count = self.windows.shape[0]
        part = f"all {count}" if count == self.available else f"the first {count} of {self.available}"
        return (
            f"{self.source}; {part} non-overlapping windows of {self.seqlen} tokens; "
            f"ppl = exp(sum of nll / predicted tokens); text sha256 {self.sha256[:12]}"
        )


def evaluation_text(
    text: TextSource | str,
    tokenizer: Any,
    *,
    seqlen: int | None = None,
    model: Any = None,
    max_windows: int | None = None,
) -> EvaluationText:
    """Cuts a text by the standard protocol.

    Args:
        text: the whole split, joined as its source says (`prism_llm.data`), or a plain string.
        tokenizer: a transformers tokenizer.
        seqlen: tokens per window (at least 2); by default min(2048, what `model` can read).
        model: asked for its limit where `seqlen` is None, and checked against it otherwise.
        max_windows: keep only the first so many windows; the protocol line then says so.

    Raises:
        ValueError: the text gives no window, or `seqlen` exceeds the model's limit.
    """
    from prism_llm.data.sources import evaluation_windows

    limit = position_limit(model)
    if seqlen is None:
        seqlen = min(MAX_SEQLEN, limit or MAX_SEQLEN)
    if seqlen < 2:
        raise ValueError(f"evaluation_text: seqlen must be at least 2, got {seqlen}")
    if limit is not None and seqlen > limit:
        raise ValueError(f"evaluation_text: seqlen must be at most the model's limit of {limit}, got {seqlen}")
    if max_windows is not None and max_windows < 1:
        raise ValueError(f"evaluation_text: max_windows must be at least 1, got {max_windows}")
    every = evaluation_windows(text, tokenizer, seqlen)
    windows = every[:max_windows].clone()
    plain = text if isinstance(text, str) else text.text
    return EvaluationText(
        windows=windows,
        available=every.shape[0],
        source=_describe(text),
        sha256=hashlib.sha256(plain.encode("utf-8")).hexdigest(),
        text_bytes=_text_bytes(plain, windows, tokenizer),
    )


def position_limit(model: Any) -> int | None:
    """How many tokens a transformers model can read at once, or None if its config does not say."""
    config = getattr(model, "config", None)
    if config is None:
        return None
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else None


def _describe(text: TextSource | str) -> str:
    if isinstance(text, str):
        return "a given text"
    return f"{text.name} {text.split} split, {len(text.documents)} documents joined by {text.separator!r}"


def _text_bytes(plain: str, windows: Tensor, tokenizer: Any) -> int | None:
    # The windows are consecutive from the start, so what they spell must begin the text. The last token may end inside
    # a character, which decodes to replacement characters.
    ids = windows.flatten().tolist()
    spelled = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).rstrip("\ufffd")
    return len(spelled.encode("utf-8")) if spelled and plain.startswith(spelled) else None
