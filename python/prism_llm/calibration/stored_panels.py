"""Triangles in a temporary file: those of a block's linears are collected together, but used one after another."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..scratch_file import ScratchFile
from .panels import Panels, UpperPanels


class StoredPanels(Panels):
    """A matrix as `UpperPanels`, in a file; only its diagonal is in memory. The original may go.

    Args:
        file: where it is written.
        matrix: on the CPU.
    """

    def __init__(self, file: ScratchFile, matrix: UpperPanels) -> None:
        self.size, self.width = matrix.size, matrix.width
        self._dtype, self._diagonal, self._file = matrix.dtype, matrix.diagonal(), file
        self._begins = [file.append(panel) for panel in matrix.panels]

    def diagonal(self) -> Tensor:
        """[k], a copy."""
        return self._diagonal.clone()

    def blocks(self) -> Iterator[tuple[int, int, Tensor]]:
        """(begin, end, panel) of every panel, begin and end being its rows; the next takes the place of a panel."""
        memory = torch.empty(min(self.width, self.size) * self.size, dtype=self._dtype)
        for index, at in enumerate(self._begins):
            begin = index * self.width
            shape = min(self.width, self.size - begin), self.size - begin
            yield begin, begin + shape[0], self._file.read_into(memory[: math.prod(shape)].view(shape), at)

    def load(self) -> UpperPanels:
        """The matrix in memory of its own."""
        return UpperPanels([panel.clone() for _, _, panel in self.blocks()], self.size, self.width)

    def to(self, dtype: torch.dtype, factor: float = 1.0) -> UpperPanels:
        """The matrix in memory of its own, multiplied by `factor` in the dtype it has and then converted."""
        panels = [torch.mul(panel, factor).to(dtype) for _, _, panel in self.blocks()]
        return UpperPanels(panels, self.size, self.width)
