"""Reads documents from local text, JSON, JSON Lines and Parquet files."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

# In order of preference, where a folder holds the same split twice.
FORMATS = {
    "parquet": (".parquet",),
    "json": (".jsonl", ".json", ".jsonl.gz", ".json.gz"),
    "text": (".txt", ".raw", ".tokens", ".txt.gz"),
}
TEXT_COLUMNS = ("text", "sentence", "content")


def format_of(path: Path) -> str | None:
    """Return the key of `FORMATS` that a file name belongs to, or None."""
    name = path.name.lower()
    return next((key for key, ends in FORMATS.items() if name.endswith(ends)), None)


def find_split_files(folder: Path, words: tuple[str, ...]) -> list[Path]:
    """Return the files of one split: one format, in the order of their shards.

    Args:
        folder: searched itself, not its subfolders (those may hold other data sets).
        words: names that the split goes by; the first one found wins, as in ``test.txt``,
            ``wiki.test.raw`` or ``test-00000-of-00002.parquet``.

    Returns:
        Sorted paths; empty where nothing matches.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file() and format_of(path))
    for word in words:
        pattern = re.compile(rf"(?<![a-z]){re.escape(word)}(?![a-z])", re.IGNORECASE)
        matches = [path for path in files if pattern.search(path.name)]
        for key in FORMATS:
            if chosen := [path for path in matches if format_of(path) == key]:
                return chosen
    return []


def read_documents(path: Path, limit: int | None = None, lines: bool = False) -> list[str]:
    """Read the documents of one file.

    Args:
        path: a file of one of `FORMATS`; any other name is read as text.
        limit: read only the first documents; None reads all.
        lines: a text file holds one document per line (newlines kept) instead of one in all.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not UTF-8, broken JSON, or records without a text column.
    """
    if not path.exists():
        raise FileNotFoundError(f"read_documents: path must exist, got {path}")
    if not path.is_file():
        raise ValueError(f"read_documents: path must be a file, got {path}")
    kind = format_of(path)
    try:
        if kind == "parquet":
            documents = _parquet_documents(path)
        elif kind == "json":
            documents = _json_documents(path)
        else:
            documents = _text_documents(path, lines)
        return list(islice(documents, limit))
    except UnicodeDecodeError as error:
        raise ValueError(f"read_documents: path must hold UTF-8 text, got {path} ({error})") from error


def _open_text(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _text_documents(path: Path, lines: bool) -> Iterator[str]:
    with _open_text(path) as stream:
        if lines:
            yield from stream
        else:
            yield stream.read()


def _json_documents(path: Path) -> Iterator[str]:
    # `.json` names both one array and, in published data sets, JSON Lines.
    with _open_text(path) as stream:
        start = stream.read(1)
        stream.seek(0)
        if start == "[":
            records: Any = enumerate([stream.read()], 1)
        else:
            records = ((number, line) for number, line in enumerate(stream, 1) if line.strip())
        for number, content in records:
            try:
                parsed = json.loads(content)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"read_documents: path must hold JSON or JSON Lines, got {path} (record at line {number}: {error})"
                ) from error
            for record in parsed if isinstance(parsed, list) else [parsed]:
                yield _text_of(record, path, number)


def _text_of(record: object, path: Path, number: int) -> str:
    if isinstance(record, str):
        return record
    if isinstance(record, dict):
        for column in TEXT_COLUMNS:
            if isinstance(record.get(column), str):
                return record[column]
    raise ValueError(
        f"read_documents: records must be strings or hold one of {TEXT_COLUMNS}, got {path} (record at line {number})"
    )


def _parquet_documents(path: Path) -> Iterator[str]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ModuleNotFoundError(
            f"read_documents: {path} needs the package pyarrow (pip install pyarrow); "
            "text, JSON and JSON Lines files need no package"
        ) from error
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"read_documents: path must be Parquet, got {path} ({error})") from error
    with file:
        names = file.schema_arrow.names
        column = next((name for name in TEXT_COLUMNS if name in names), None)
        if column is None:
            raise ValueError(f"read_documents: Parquet must have a column of {TEXT_COLUMNS}, got {names} in {path}")
        for batch in file.iter_batches(batch_size=1024, columns=[column]):
            yield from (value for value in batch.column(0).to_pylist() if value is not None)
