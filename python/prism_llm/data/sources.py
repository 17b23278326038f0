"""Texts by name, and the token tensors that calibration and evaluation cut from them.

`load_text` follows the protocols that published numbers use; a number is comparable only together
with its source, sequence length and tokenizer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prism_llm.data import stdlib
from prism_llm.data.local_files import FORMATS, find_split_files, read_documents

if TYPE_CHECKING:
    from torch import Tensor

_OFFLINE = "offline, use the source 'stdlib', the path of a text file, or a local copy through data_dir"


@dataclass(frozen=True)
class TextSource:
    """A text and where it came from.

    Attributes:
        name: name of the source, or the path that was read.
        split: "train", "validation" or "test".
        documents: the documents in order.
        separator: what joins the documents into `text`.
        description: one line for people: origin, protocol, size.
        sha256: hexadecimal digest of `text` in UTF-8.
    """

    name: str
    split: str
    documents: list[str] = field(repr=False)
    separator: str
    description: str
    sha256: str

    @property
    def text(self) -> str:
        """The documents joined by the separator."""
        return self.separator.join(self.documents)


@dataclass(frozen=True)
class _HubSplit:
    """One split of a data set on the Hugging Face hub, and the names of its local copies."""

    files: str  # path of the data file inside the repository's revision
    words: tuple[str, ...]  # names in local files
    limit: int | None = None  # documents


@dataclass(frozen=True)
class _HubSource:
    repository: str
    column: str
    separator: str
    splits: dict[str, _HubSplit]
    revision: str = "main"
    subfolder: str = ""  # where a clone of the repository holds the files
    one_file: bool = False  # the protocol reads the first shard alone
    strip_rows: bool = False  # rows of a text file carry no newline


def _wikitext(split: str, *words: str) -> _HubSplit:
    return _HubSplit(f"wikitext-2-raw-v1/{split}-*.parquet", (split, *words))


def _penn_treebank(split: str, *words: str) -> _HubSplit:
    return _HubSplit(f"penn_treebank/{split}/*.parquet", (split, *words))


_HUB_SOURCES = {
    "wikitext2": _HubSource(
        repository="Salesforce/wikitext",
        column="text",
        separator="\n\n",
        subfolder="wikitext-2-raw-v1",
        splits={
            "train": _wikitext("train"),
            "validation": _wikitext("validation", "valid"),
            "test": _wikitext("test"),
        },
    ),
    "c4": _HubSource(
        repository="allenai/c4",
        column="text",
        separator=" ",
        subfolder="en",
        one_file=True,
        # A shard holds 356 317 documents. 8192 (about 18 MB) give 128 crops of 2048 tokens a wide
        # choice; 1100 of the validation shard are the protocol that papers call c4-new.
        splits={
            "train": _HubSplit("en/c4-train.00000-of-01024.json.gz", ("train",), 8192),
            "test": _HubSplit("en/c4-validation.00000-of-00008.json.gz", ("validation", "valid", "test"), 1100),
        },
    ),
    "ptb": _HubSource(
        repository="ptb-text-only/ptb_text_only",
        column="sentence",
        separator=" ",
        subfolder="penn_treebank",
        # The main revision is a loading script, which `datasets` no longer runs.
        revision="refs/convert/parquet",
        strip_rows=True,
        splits={
            "train": _penn_treebank("train"),
            "validation": _penn_treebank("validation", "valid"),
            "test": _penn_treebank("test"),
        },
    ),
}
SOURCES = ("stdlib", *_HUB_SOURCES)


def load_text(source: str, split: str, data_dir: str | Path | None = None) -> TextSource:
    """Load one split of a text.

    Args:
        source: ``stdlib`` (offline: the running Python's own source text), ``wikitext2``, ``c4``,
            ``ptb``, or the path of a text, JSON, JSON Lines or Parquet file (whose whole content
            serves every split).
        split: ``train`` (calibration, recovery), ``validation`` where the source has one, or
            ``test`` (evaluation).
        data_dir: folder with a local copy of `source`; None asks the hub through ``datasets``.

    Returns:
        The text, with its origin and digest.

    Raises:
        ValueError: unknown source or split, a source that takes no `data_dir`, or an empty text.
        FileNotFoundError: a path, the local copy, or the split in it does not exist.
        ModuleNotFoundError: ``datasets`` (or, for Parquet files, ``pyarrow``) is not installed.
        ConnectionError: the hub did not deliver.
    """
    if data_dir is not None and source not in _HUB_SOURCES:
        raise ValueError(f"load_text: data_dir must go with one of {tuple(_HUB_SOURCES)}, got source {source!r}")
    if source == "stdlib":
        _check_split(source, split, stdlib.SPLITS)
        documents = [text for _, text in stdlib.stdlib_documents(split)]
        return _finish(source, split, documents, stdlib.JOIN_SEPARATOR, "Python standard library")
    if source in _HUB_SOURCES:
        hub = _HUB_SOURCES[source]
        _check_split(source, split, tuple(hub.splits))
        if data_dir is None:
            documents, origin = _from_hub(source, hub, split), f"hub {hub.repository}"
        else:
            documents, origin = _from_folder(source, hub, split, Path(data_dir))
        return _finish(source, split, documents, hub.separator, origin)
    _check_split(source, split, ("train", "validation", "test"))
    path = _as_path(source)
    return _finish(source, split, read_documents(path), "\n\n", f"file {path.name}")


def calibration_batches(
    source_text: TextSource | str, tokenizer: Any, num_samples: int, seqlen: int, seed: int
) -> Tensor:
    """Draw random crops of a text.

    Args:
        source_text: the text.
        tokenizer: a transformers tokenizer; its default special tokens apply to the whole text.
        num_samples: number of crops; they may overlap.
        seqlen: tokens per crop.
        seed: seeds a generator of its own; the global one stays untouched.

    Returns:
        int64 ``[num_samples, seqlen]`` token ids.

    Raises:
        ValueError: a count below 1, or a text shorter than one crop.
    """
    import torch

    _check_positive("calibration_batches", num_samples=num_samples, seqlen=seqlen)
    ids = _token_ids("calibration_batches", source_text, tokenizer, seqlen)
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(ids.numel() - seqlen + 1, (num_samples, 1), generator=generator)
    return ids[starts + torch.arange(seqlen)]


def evaluation_windows(text: TextSource | str, tokenizer: Any, seqlen: int, max_windows: int | None = None) -> Tensor:
    """Cut a whole text into windows in order, without overlap; a shorter tail is dropped.

    Args:
        text: the text.
        tokenizer: a transformers tokenizer; its default special tokens apply to the whole text.
        seqlen: tokens per window.
        max_windows: keep only the first windows; None keeps all.

    Returns:
        int64 ``[windows, seqlen]`` token ids.

    Raises:
        ValueError: a count below 1, or a text shorter than one window.
    """
    _check_positive("evaluation_windows", seqlen=seqlen)
    if max_windows is not None:
        _check_positive("evaluation_windows", max_windows=max_windows)
    ids = _token_ids("evaluation_windows", text, tokenizer, seqlen)
    windows = ids.numel() // seqlen
    return ids[: windows * seqlen].view(windows, seqlen)[:max_windows].clone()


def _token_ids(function: str, text: TextSource | str, tokenizer: Any, seqlen: int) -> Tensor:
    import torch

    plain = text.text if isinstance(text, TextSource) else text
    # verbose=False: the warning about the model's context is meant for single sequences.
    ids = torch.tensor(tokenizer(plain, verbose=False)["input_ids"], dtype=torch.int64)
    if ids.numel() < seqlen:
        raise ValueError(
            f"{function}: text must hold at least one sequence of {seqlen} tokens, got {ids.numel()} tokens"
        )
    return ids


def _check_positive(function: str, **values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{function}: {name} must be at least 1, got {value}")


def _check_split(source: str, split: str, splits: Iterable[str]) -> None:
    if split not in splits:
        raise ValueError(f"load_text: split of {source!r} must be one of {tuple(splits)}, got {split!r}")


def _as_path(source: str) -> Path:
    path = Path(source).expanduser()
    ends = tuple(end for suffixes in FORMATS.values() for end in suffixes)
    looks_like_a_path = path.exists() or len(path.parts) > 1 or source.lower().endswith(ends)
    if not looks_like_a_path:
        raise ValueError(f"load_text: source must be one of {SOURCES} or the path of a file, got {source!r}")
    if not path.exists():
        raise FileNotFoundError(f"load_text: source must be an existing file, got {source!r}")
    return path


def _finish(source: str, split: str, documents: list[str], separator: str, origin: str) -> TextSource:
    text = separator.join(documents)
    if not text.strip():
        raise ValueError(
            f"load_text: source {source!r} ({split}) must hold text that is not blank, "
            f"got {len(text)} characters from {origin}"
        )
    content = text.encode("utf-8")
    notes = f"{origin}, {split}: {len(documents)} documents, {len(content):,} bytes"
    if source == "wikitext2" and "<unk>" in text:
        # The word-level release replaced rare words, which makes every perplexity lower.
        notes += "; word-level release with <unk>, not comparable with the raw one"
    return TextSource(source, split, documents, separator, notes, hashlib.sha256(content).hexdigest())


def _from_folder(source: str, hub: _HubSource, split: str, folder: Path) -> tuple[list[str], str]:
    if not folder.is_dir():
        raise FileNotFoundError(f"load_text: data_dir must be an existing folder, got {folder}")
    wanted = hub.splits[split]
    # A clone of the hub's repository keeps the files one level down.
    places = [place for place in (folder, folder / hub.subfolder) if place.is_dir()]
    files = next((found for place in places if (found := find_split_files(place, wanted.words))), [])
    if not files:
        present = sorted(path.name for path in folder.iterdir()) or ["nothing"]
        raise FileNotFoundError(
            f"load_text: data_dir must hold the {split} split of {source!r} as a file named after "
            f"one of {wanted.words} (parquet, json, jsonl, txt), got {folder} with "
            f"{', '.join(present[:20])}"
        )
    files = files[:1] if hub.one_file else files
    documents: list[str] = []
    for path in files:
        left = None if wanted.limit is None else wanted.limit - len(documents)
        documents += read_documents(path, left, lines=True)
    return _as_rows(hub, documents), f"local copy {', '.join(path.name for path in files)}"


def _as_rows(hub: _HubSource, rows: list[str]) -> list[str]:
    # The hub's wikitext keeps the newline of a row, but has "" for a blank one.
    return [row.strip() if hub.strip_rows or not row.strip() else row for row in rows]


def _from_hub(source: str, hub: _HubSource, split: str) -> list[str]:
    try:
        import datasets
    except ImportError as error:
        raise ModuleNotFoundError(
            f"load_text: source {source!r} needs the package datasets (pip install datasets); {_OFFLINE}"
        ) from error
    wanted = hub.splits[split]
    try:
        # Streaming: a limited split does not fetch the rest of its shard.
        rows = datasets.load_dataset(
            hub.repository,
            data_files={split: wanted.files},
            split=split,
            revision=hub.revision,
            streaming=True,
        )
        documents = [row[hub.column] for row in islice(rows, wanted.limit)]
    except (OSError, RuntimeError, ValueError) as error:
        # What the hub's client raises without a network varies by version; all are among these.
        raise ConnectionError(
            f"load_text: source {source!r} must be reachable at {hub.repository}, got "
            f"{type(error).__name__}: {error}; {_OFFLINE}"
        ) from error
    return _as_rows(hub, documents)
