"""Reads tensors of a safetensors file into memory of their own.

The safetensors library maps the file: a tensor copied from it is in memory twice, as its copy and as pages of the file,
until the file is closed. Here bytes go from the file into the tensor.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

#: The dtypes by their names in safetensors files.
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}


class SafetensorsFile:
    """A safetensors file whose header the library has checked.

    Raises:
        safetensors.SafetensorError: the file is none.
        FileNotFoundError: no such file.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        with safe_open(path, framework="pt"):
            pass
        self._path = path
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header: dict[str, dict[str, Any]] = json.loads(stream.read(length))
        self._data = 8 + length
        header.pop("__metadata__", None)
        self._entries = header

    @property
    def names(self) -> list[str]:
        return list(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._entries[name]["shape"])

    def read(self, name: str) -> Tensor:
        """A tensor on the CPU. Raises ValueError where its dtype is not one of `DTYPES`."""
        entry = self._entries[name]
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"{self._path}: {name} must have a dtype of {list(DTYPES)}, got {entry['dtype']}")
        tensor = torch.empty(entry["shape"], dtype=DTYPES[entry["dtype"]])
        data = tensor.reshape(-1).view(torch.uint8).numpy().data
        begin, done = self._data + entry["data_offsets"][0], 0
        with self._path.open("rb", buffering=0) as stream:
            stream.seek(begin)
            while done < data.nbytes:
                count = stream.readinto(data[done:])
                if not count:
                    raise OSError(f"{self._path}: {name} must have {data.nbytes} bytes, got {done}")
                done += count
        return tensor
