"""Tensors in a temporary file, for what is needed again later but not meanwhile.

The system holds such a file in spare memory where there is some, and takes that memory back when it is needed.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class ScratchFile:
    """A temporary file for bytes of CPU tensors, in the folder that `tempfile` chooses (the variable TMPDIR).

    It has no name where the system allows that, and is gone with the last object that refers to it. OSError, naming the
    folder, where there is no space left in it.
    """

    def __init__(self) -> None:
        self._folder = tempfile.gettempdir()
        self._stream: Any = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115, it lives as long as this
        weakref.finalize(self, self._stream.close)
        self._end = 0

    def append(self, tensor: Tensor) -> int:
        """Writes a tensor at the end and returns where it begins."""
        begin = self._end
        self.write(tensor, begin)
        self._end += tensor.numel() * tensor.element_size()
        return begin

    def write(self, tensor: Tensor, begin: int) -> None:
        """Writes a tensor over what is there."""
        data, done = _bytes_of(tensor.detach().contiguous()), 0
        self._stream.seek(begin)
        try:
            while done < data.nbytes:
                done += self._stream.write(data[done:])
        except OSError as error:
            raise OSError(
                f"ScratchFile: TMPDIR must have room for what waits on disk, got {self._folder} with {error.strerror} "
                f"at {begin + done} bytes"
            ) from error

    def read_into(self, tensor: Tensor, begin: int) -> Tensor:
        """Fills a contiguous tensor with the bytes from `begin` on, and returns it."""
        data, done = _bytes_of(tensor), 0
        self._stream.seek(begin)
        while done < data.nbytes:
            count = self._stream.readinto(data[done:])
            if not count:
                raise OSError(f"ScratchFile: tensor of {data.nbytes} bytes must be in the file, got {done} bytes of it")
            done += count
        return tensor


class TensorFile:
    """A list of CPU tensors in a `ScratchFile`: reading an entry gives a copy, setting one writes it."""

    def __init__(self) -> None:
        self._file = ScratchFile()
        self._entries: list[tuple[int, tuple[int, ...], torch.dtype]] = []

    def append(self, tensor: Tensor) -> None:
        self._entries.append((self._file.append(tensor), tuple(tensor.shape), tensor.dtype))

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Tensor:
        begin, shape, dtype = self._entries[index]
        return self._file.read_into(torch.empty(shape, dtype=dtype), begin)

    def __setitem__(self, index: int, tensor: Tensor) -> None:
        begin, shape, dtype = self._entries[index]
        if (tuple(tensor.shape), tensor.dtype) == (shape, dtype):
            self._file.write(tensor, begin)
        else:
            self._entries[index] = (self._file.append(tensor), tuple(tensor.shape), tensor.dtype)


def _bytes_of(tensor: Tensor) -> memoryview:
    """Of a contiguous tensor, sharing its memory."""
    return tensor.view(-1).view(torch.uint8).numpy().data
