"""What commands print: results on stdout, everything else on stderr."""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from .exits import UsageError

LOG_LEVELS = ("debug", "info", "warning", "error")
_LOG_EVERY_S = 30.0

logger = logging.getLogger("prism_llm.cli")


def log_level() -> str:
    """The level of PRISM_LOG_LEVEL, "info" by default. Raises UsageError for an unknown one."""
    level = os.environ.get("PRISM_LOG_LEVEL", "info").lower()
    if level not in LOG_LEVELS:
        raise UsageError(f"PRISM_LOG_LEVEL: must be one of {', '.join(LOG_LEVELS)}, got {level!r}")
    return level


def configure_logging() -> None:
    """Sends the package's log to stderr; other libraries keep theirs, without their progress bars."""
    level = getattr(logging, log_level().upper())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s" if level > logging.DEBUG else "%(name)s: %(message)s"))
    for name in ("prism_llm", "prism_kernels"):
        package = logging.getLogger(name)
        package.handlers = [handler]
        package.setLevel(level)
        package.propagate = False
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def quiet_transformers() -> None:
    """Silences the notes and bars of transformers; its errors stay."""
    import transformers

    if log_level() != "debug":
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()


def stdout() -> Console:
    # Into a file or a pipe, tables keep their columns whole.
    return Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 200)


def stderr() -> Console:
    return Console(file=sys.stderr, highlight=False, soft_wrap=True)


def print_json(value: Mapping[str, Any]) -> None:
    """The one JSON object of a command."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


class Progress:
    """A callable (done, total, note) for one task: a bar on a terminal, otherwise a log line now and then."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._start = self._last = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(desc=title, leave=False, file=sys.stderr)

    def __call__(self, done: int, total: int, note: str = "") -> None:
        if self._bar is not None:
            self._bar.total = total
            self._bar.n = done
            self._bar.set_postfix_str(note, refresh=True)
            return
        now = time.monotonic()
        if now - self._last >= _LOG_EVERY_S:
            self._last = now
            left = (now - self._start) / max(done, 1) * (total - done)
            logger.info("%s: %d of %d, about %.0f s left %s", self._title, done, total, left, note)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """Progress of one task on stderr."""
    task = Progress(title)
    try:
        yield task
    finally:
        task.close()


def size(nbytes: float) -> str:
    """Bytes for people: 1.23 MB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= scale:
            return f"{nbytes / scale:.2f} {unit}"
    return f"{nbytes:.0f} B"
