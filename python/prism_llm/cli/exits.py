"""Exit codes, and which error gives which."""

from collections.abc import Iterator
from contextlib import contextmanager

OK = 0
FAILURE = 1
USAGE = 2
CORRUPT = 4
INTERRUPTED = 130
TERMINATED = 143


class UsageError(Exception):
    """An argument, a recipe or a path that the user has to change; names it, the rule and the value."""


class Terminated(BaseException):
    """SIGTERM arrived; unwinds like an interrupt, so that nothing half-written stays."""


@contextmanager
def usage_errors() -> Iterator[None]:
    """Inside, what the libraries say about values is about what the user typed. Corrupt files stay corrupt files."""
    try:
        yield
    except (ValueError, FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        if code_of(error) == CORRUPT:
            raise
        raise UsageError(one_line(error)) from error


def code_of(error: BaseException) -> int:
    """The exit code of an exception that ends a command."""
    import sys

    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, Terminated):
        return TERMINATED
    if isinstance(error, UsageError):
        return USAGE
    # An error of a module that was never imported cannot have been raised: no import is needed to recognize it.
    for code, module, name in (
        (USAGE, "prism_llm.checkpoint", "OutputError"),
        (CORRUPT, "prism_llm.checkpoint", "CheckpointError"),
        (CORRUPT, "prism_kernels.formats", "FormatError"),
        (CORRUPT, "safetensors", "SafetensorError"),
        (USAGE, "pydantic", "ValidationError"),
    ):
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(error, kind):
            return code
    return FAILURE


def one_line(error: BaseException) -> str:
    """The message of an error in one line; that of a validation names every field."""
    errors = getattr(error, "errors", None)
    if callable(errors) and type(error).__name__ == "ValidationError":
        parts = []
        for item in errors():
            where = ".".join(str(part) for part in item.get("loc", ()))
            message = str(item.get("msg", "")).removeprefix("Value error, ")
            given = "" if item.get("type") == "value_error" else f", got {item.get('input')!r}"
            parts.append(f"{where}: {message}{given}" if where else message)
        return "; ".join(parts)
    text = " ".join(str(error).split())
    return text or type(error).__name__
