"""`prism generate`: text, token by token, and its speed."""

import sys
import time
from typing import Annotated, Any

import typer

from .exits import UsageError, usage_errors
from .models import JsonOption, ModelArgument, load_any
from .output import print_json, stderr


def generate(
    model: ModelArgument = None,
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "def ",
    max_new_tokens: Annotated[int, typer.Option(help="Tokens to generate at most.")] = 64,
    as_json: JsonOption = False,
) -> None:
    """Continues a text greedily; prints the tokens as they come, and tokens per second on stderr."""
    from prism_llm.evaluation import greedy_tokens
    from prism_llm.evaluation.windows import position_limit

    subject, tokenizer, name = load_any(model)
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"][0].long()
    limit = position_limit(subject)
    if limit is not None and ids.numel() + max_new_tokens > limit:
        raise UsageError(
            f"--max-new-tokens: prompt and new tokens must fit the model's limit of {limit}, "
            f"got {ids.numel()} + {max_new_tokens}"
        )
    with usage_errors():
        stream = greedy_tokens(subject, ids, max_new_tokens)
    printer = _Printer(tokenizer, prompt, silent=as_json)
    ends = _end_tokens(subject, tokenizer)
    times = []
    for token in stream:
        times.append(time.perf_counter())
        if token in ends:
            break
        printer.add(token)
    text = printer.finish()
    # The first token belongs to the prefill.
    rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else None
    if as_json:
        print_json(
            {
                "model": name,
                "prompt": prompt,
                "text": text,
                "prompt_tokens": ids.numel(),
                "new_tokens": len(printer.tokens),
                "tokens_per_second": rate,
            }
        )
    else:
        speed = "" if rate is None else f", {rate:.1f} tokens/s after the first"
        stderr().print(f"{len(printer.tokens)} tokens{speed}")


class _Printer:
    """Prints what each token adds to the decoded text: a character may need several tokens."""

    def __init__(self, tokenizer: Any, prompt: str, *, silent: bool) -> None:
        self.tokens: list[int] = []
        self._tokenizer, self._silent, self._shown = tokenizer, silent, 0
        self._write(prompt)

    def _write(self, text: str) -> None:
        if not self._silent:
            sys.stdout.write(text)
            sys.stdout.flush()

    def _decode(self) -> str:
        return self._tokenizer.decode(self.tokens, clean_up_tokenization_spaces=False)

    def add(self, token: int) -> None:
        self.tokens.append(token)
        text = self._decode()
        if not text.endswith("\ufffd"):
            self._write(text[self._shown :])
            self._shown = len(text)

    def finish(self) -> str:
        text = self._decode()
        self._write(text[self._shown :] + "\n")
        return text


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return {token for token in (*listed, tokenizer.eos_token_id) if token is not None}


def register(app: typer.Typer) -> None:
    app.command("generate")(generate)
