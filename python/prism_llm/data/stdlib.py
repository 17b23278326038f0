"""The offline corpus ``stdlib``: the source text of the Python that is running.

Every machine that can run this package already holds about 10 MB of real, documented text, so
calibration, evaluation and the bundled model need no network and no stored data set.
"""

from __future__ import annotations

import hashlib
import sysconfig
import tokenize
from functools import cache
from pathlib import Path, PurePosixPath

SPLITS = ("train", "test")
JOIN_SEPARATOR = "\n\n"
HELD_OUT_ONE_IN = 10

# Tests repeat the modules that they check (a leak between the splits) and hold files that are
# broken on purpose. `pydoc_data` is one generated dict, whose texts come in as documents instead.
# `encodings` is 1.4 MB of generated code-page tables, near copies of each other on both sides.
_LEFT_OUT_FOLDERS = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"} | {"pydoc_data", "encodings"}
)
# The build writes its own paths and options here: other bytes on every machine.
_LEFT_OUT_PREFIXES = ("_sysconfigdata", "_sysconfig_vars", "config-")
_TOPICS = "pydoc_data/topics/"


def split_of(path: str) -> str:
    """Return the split ("train" or "test") that a document belongs to.

    The choice hashes the path alone, so a module keeps its split on every machine and in every
    Python version, whatever other modules come or go. Topics of pydoc always train.

    Args:
        path: POSIX path relative to the standard library, for example ``"json/decoder.py"``.
    """
    # Topics quote each other at length: holding out some of them would leak into training.
    if path.startswith(_TOPICS):
        return "train"
    digest = hashlib.sha256(path.encode("utf-8")).digest()
    return "test" if int.from_bytes(digest[:8], "big") % HELD_OUT_ONE_IN == 0 else "train"


def stdlib_documents(split: str) -> list[tuple[str, str]]:
    """Return the documents of one split, sorted by path.

    Args:
        split: ``"train"`` or ``"test"`` (held out, about a tenth).

    Returns:
        Pairs (POSIX path relative to the standard library, text). The topics of
        ``pydoc_data.topics`` appear as ``"pydoc_data/topics/<topic>"``.

    Raises:
        ValueError: unknown split.
        FileNotFoundError: this Python has no standard library sources on disk.
    """
    if split not in SPLITS:
        raise ValueError(f"stdlib_documents: split must be one of {SPLITS}, got {split!r}")
    return [document for document in _all_documents() if split_of(document[0]) == split]


def stdlib_text(split: str) -> str:
    """Return all documents of one split, joined with a blank line. Errors as `stdlib_documents`."""
    return JOIN_SEPARATOR.join(text for _, text in stdlib_documents(split))


@cache
def _all_documents() -> tuple[tuple[str, str], ...]:
    root = Path(sysconfig.get_paths()["stdlib"])
    if not (root / "os.py").is_file():
        raise FileNotFoundError(f"stdlib_documents: the standard library must lie on disk as .py files, none in {root}")
    documents = _topic_documents()
    for file in root.rglob("*.py"):
        relative = file.relative_to(root)
        if _is_left_out(PurePosixPath(relative.as_posix())):
            continue
        text = _read_source(file)
        if text is not None and text.strip():
            documents.append((relative.as_posix(), text))
    return tuple(sorted(documents))


def _is_left_out(path: PurePosixPath) -> bool:
    return any(part in _LEFT_OUT_FOLDERS or part.startswith(_LEFT_OUT_PREFIXES) for part in path.parts)


def _read_source(file: Path) -> str | None:
    """Decode by PEP 263 (coding cookie, else UTF-8); None for a file that Python itself rejects."""
    try:
        with tokenize.open(file) as stream:
            return stream.read()
    except (SyntaxError, UnicodeDecodeError):
        return None


def _topic_documents() -> list[tuple[str, str]]:
    # Some distributions strip pydoc_data; the corpus is then smaller, not broken.
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return []
    return [(_TOPICS + name, text) for name, text in topics.items() if text.strip()]
