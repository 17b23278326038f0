"""One safetensors file, written while its tensors arrive: none of them stays in memory.

A safetensors file opens with a header that names every tensor, and its data has no holes; so tensors of wide elements
must come first for each to be aligned to its elements, as the safetensors library writes them. What a shard will hold
is known when it is full. Until then its data lies in a spool file beside it, in the order of arrival; `close` writes
header and data in order, a piece at a time. That is one more copy from file to file, for memory that does not grow with
the shard.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from ..models.safetensors_file import DTYPES
from ._errors import CheckpointError

_PIECE_BYTES = 1 << 20
_HEADER_ALIGNMENT = 8
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class _Entry:
    """A tensor in the spool."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    digest: bytes

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Shard:
    """A safetensors file in the making.

    Args:
        path: of the file that `close` leaves; data is spooled beside it until then.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._spool_path = path, path.with_suffix(".spool")
        self._spool: BinaryIO = self._spool_path.open("w+b")
        self._entries: dict[str, _Entry] = {}
        self.nbytes = 0

    def add(self, name: str, tensor: Tensor) -> None:
        """Appends a tensor of any device and layout; a new name. Raises CheckpointError for a dtype without a name."""
        if tensor.dtype not in _NAMES:
            raise CheckpointError(f"tensor {name}: must have a dtype of safetensors, got {tensor.dtype}")
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        self._spool.write(data.data)
        digest = hashlib.sha256(data.data).digest()
        self._entries[name] = _Entry(tensor.dtype, tuple(tensor.shape), self.nbytes, digest)
        self.nbytes += data.nbytes

    def close(self, metadata: Mapping[str, str]) -> bytes:
        """Writes the file and removes the spool.

        Returns:
            A digest of names, dtypes, shapes and data that does not depend on the order of `add`.
        """
        content = hashlib.sha256()
        for name, entry in sorted(self._entries.items()):
            content.update(f"{name}|{entry.dtype}|{list(entry.shape)}|".encode() + entry.digest)
        ordered = sorted(self._entries, key=lambda name: (-self._entries[name].dtype.itemsize, name))
        with self._path.open("wb") as out:
            out.write(_header(ordered, self._entries, metadata))
            for name in ordered:
                self._copy(self._entries[name], out)
        self.discard()
        return content.digest()

    def _copy(self, entry: _Entry, out: BinaryIO) -> None:
        self._spool.seek(entry.begin)
        left = entry.nbytes
        while left:
            piece = self._spool.read(min(left, _PIECE_BYTES))
            if not piece:
                raise RuntimeError(f"{self._spool_path}: must hold {self.nbytes} bytes, got {left} fewer")
            out.write(piece)
            left -= len(piece)

    def discard(self) -> None:
        """Removes the spool."""
        self._spool.close()
        self._spool_path.unlink(missing_ok=True)


def _header(ordered: list[str], entries: Mapping[str, _Entry], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    begin = 0
    for name in ordered:
        entry = entries[name]
        end = begin + entry.nbytes
        header[name] = {"dtype": _NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": [begin, end]}
        begin = end
    text = _json(header)
    text = text.ljust(-(-len(text) // _HEADER_ALIGNMENT) * _HEADER_ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def set_metadata(path: Path, metadata: Mapping[str, str]) -> None:
    """Replaces the metadata of a safetensors file in place, by metadata that is not longer."""
    with path.open("r+b") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(length))
        header["__metadata__"] = dict(metadata)
        text = _json(header)
        if len(text) > length:
            raise RuntimeError(f"{path}: header must keep its length {length}, got {len(text)}")
        stream.seek(8)
        stream.write(text.ljust(length))


def _json(header: Mapping[str, object]) -> bytes:
    return json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
