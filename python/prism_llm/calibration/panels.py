"""The upper triangle of a square matrix in panels of rows: half the memory, and half the products that make it.

Panel i holds the rows from `b i` on, `b = WIDTH` of them (the last panel may have fewer), and the columns from `b i`
on. The diagonal block of a symmetric matrix is whole, of an upper triangular one it has zeros below the diagonal.
Panels are tensors of their own, so a matrix goes panel by panel, and everything is done by dense products of blocks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

#: Rows of a panel: enough for efficient products, and the waste of half a diagonal block stays small.
WIDTH = 512

# Of the rows multiplied by a matrix.
_ROWS_AT_A_TIME = 256
_ROWS_OF_SUMS = 32


class Panels(ABC):
    """What a matrix [k, k] can do wherever its panels are.

    Attributes:
        size: k.
        width: rows of every panel but the last.
    """

    size: int
    width: int

    @abstractmethod
    def blocks(self) -> Iterator[tuple[int, int, Tensor]]:
        """(begin, end, panel) of every panel, begin and end being its rows; it may last until the next is asked for."""

    def quadratic(self, rows: Tensor) -> Tensor:
        """x M x^T of every row x of `rows` [m, k], with the symmetric matrix M: float64 [m]."""
        result = torch.zeros(rows.shape[0], dtype=torch.float64, device=rows.device)
        scratch = rows.new_empty(min(_ROWS_AT_A_TIME, rows.shape[0]) * self.size)
        for begin, end, panel in self.blocks():
            for part, sums in zip(rows.split(_ROWS_AT_A_TIME), result.split(_ROWS_AT_A_TIME), strict=True):
                shape = part.shape[0], panel.shape[1]
                product = torch.mm(part[:, begin:end], panel, out=scratch[: math.prod(shape)].view(shape))
                product.mul_(part[:, begin:])[:, end - begin :].mul_(2)
                for first in range(0, part.shape[0], _ROWS_OF_SUMS):  # torch sums copies in float64
                    few = slice(first, first + _ROWS_OF_SUMS)
                    sums[few] += product[few].sum(1, dtype=torch.float64)
        return result


class UpperPanels(Panels):
    """A symmetric or upper triangular matrix [k, k].

    Attributes:
        panels: [rows, k - begin], one dtype and device.
    """

    def __init__(self, panels: list[Tensor], size: int, width: int) -> None:
        self.panels, self.size, self.width = panels, size, width

    @classmethod
    def zeros(
        cls, size: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu", width: int = 0
    ) -> UpperPanels:
        """A matrix of zeros; `width` is `WIDTH` unless it is given."""
        width = width or WIDTH
        shapes = [(min(width, size - begin), size - begin) for begin in range(0, size, width)]
        return cls([torch.zeros(shape, dtype=dtype, device=device) for shape in shapes], size, width)

    @classmethod
    def of(cls, matrix: Tensor, width: int = 0) -> UpperPanels:
        """The upper triangle of a matrix [k, k], in memory of its own."""
        size, width = matrix.shape[0], width or WIDTH
        begins = range(0, size, width)
        return cls([matrix[begin : begin + width, begin:].contiguous().clone() for begin in begins], size, width)

    @property
    def dtype(self) -> torch.dtype:
        return self.panels[0].dtype if self.panels else torch.float32

    @property
    def nbytes(self) -> int:
        return sum(panel.numel() * panel.element_size() for panel in self.panels)

    def blocks(self) -> Iterator[tuple[int, int, Tensor]]:
        """(begin, end, panel) of every panel, begin and end being its rows."""
        for index, panel in enumerate(self.panels):
            begin = index * self.width
            yield begin, begin + panel.shape[0], panel

    def load(self) -> UpperPanels:
        """Itself: it is in memory."""
        return self

    def to(self, dtype: torch.dtype, factor: float = 1.0) -> UpperPanels:
        """A copy, multiplied by `factor` in the dtype it has and then converted."""
        return UpperPanels([(panel * factor).to(dtype) for panel in self.panels], self.size, self.width)

    def diagonal(self) -> Tensor:
        """[k], a copy."""
        return torch.cat([panel.diagonal() for panel in self.panels]) if self.panels else torch.zeros(0)

    def add_to_diagonal(self, value: float) -> None:
        for panel in self.panels:
            panel.diagonal().add_(value)

    def fill_diagonal(self, where: Tensor, value: float) -> None:
        """Sets the entries of the diagonal at `where`, bool [k]."""
        for begin, end, panel in self.blocks():
            panel.diagonal()[where[begin:end]] = value

    def add_products(self, rows: Tensor) -> None:
        """Adds X^T X of `rows` [m, k], of the matrix's dtype."""
        for begin, end, panel in self.blocks():
            panel.addmm_(rows[:, begin:end].T, rows[:, begin:])

    def is_finite(self) -> bool:
        # Minimum and maximum are NaN where a value is, and need no copies as `isfinite` does.
        return all(bool(torch.stack(torch.aminmax(panel)).isfinite().all()) for panel in self.panels)

    def full(self, *, symmetric: bool) -> Tensor:
        """The whole matrix [k, k], in memory of its own: mirrored, or with zeros below the diagonal."""
        device = self.panels[0].device if self.panels else "cpu"
        matrix = torch.zeros(self.size, self.size, dtype=self.dtype, device=device)
        for begin, end, panel in self.blocks():
            matrix[begin:end, begin:] = panel
            if symmetric:
                matrix[end:, begin:end] = panel[:, end - begin :].T
        return matrix

    def strip(self, begin: int, end: int) -> Tensor:
        """Rows `begin` to `end` of an upper triangular matrix, from column `begin` on; may be a view."""
        first = begin // self.width
        if end <= min((first + 1) * self.width, self.size):
            top = first * self.width
            return self.panels[first][begin - top : end - top, begin - top :]
        strip = torch.zeros(end - begin, self.size - begin, dtype=self.dtype, device=self.panels[0].device)
        for top, bottom, panel in self.blocks():
            rows = slice(max(begin, top), min(end, bottom))
            if rows.start < rows.stop:
                left = max(top, begin)
                strip[rows.start - begin : rows.stop - begin, left - begin :] = panel[
                    rows.start - top : rows.stop - top, left - top :
                ]
        return strip

    def times(self, rows: Tensor) -> Tensor:
        """`rows` [m, k] times the symmetric matrix, [m, k]."""
        result = torch.zeros_like(rows)
        for begin, end, panel in self.blocks():
            result[:, begin:].addmm_(rows[:, begin:end], panel)
            result[:, begin:end].addmm_(rows[:, end:], panel[:, end - begin :].T)
        return result
