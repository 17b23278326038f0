"""What calibration knows about the input X [tokens, k] of one or several linears."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import torch
from torch import Tensor

from ..memory import return_free_memory
from ..scratch_file import ScratchFile
from .panels import UpperPanels
from .stored_panels import StoredPanels

# Copies in float32 and float64 are larger than the activations themselves; products need more tokens to be efficient.
_TOKENS_OF_SUMS = 128
_COLUMNS_OF_SUMS = 1024
_TOKENS_OF_PRODUCTS = 512


class CalibrationError(RuntimeError):
    """Calibration gave no usable statistics; names the linear."""


class InputStatistics:
    """Running sums over the tokens that reached a linear.

    Args:
        in_features: k.
        hessian: also accumulate the Gram matrix X^T X.
        max_tokens: take only the first so many tokens; None takes all.
        device: where the sums live.

    Attributes:
        tokens: how many tokens were added.
        sum_squares: float64 [k], sum over tokens of x_j^2.
        sum_abs: float64 [k], sum over tokens of |x_j|; only where `products` are.
        products: X^T X in float32, of which only the upper triangle is computed and held, or None. It may lie in a
            file; `products.load()` is in memory.
    """

    def __init__(
        self,
        in_features: int,
        *,
        hessian: bool,
        max_tokens: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.tokens = 0
        self.max_tokens = max_tokens
        self.sum_squares = torch.zeros(in_features, dtype=torch.float64, device=device)
        self.sum_abs = torch.zeros_like(self.sum_squares)
        self.products: UpperPanels | StoredPanels | None = None
        if hessian:
            self.products = UpperPanels.zeros(in_features, device=device)

    @property
    def gram(self) -> Tensor | None:
        """float32 [k, k], the whole X^T X in memory of its own."""
        return None if self.products is None else self.products.load().full(symmetric=True)

    @gram.setter
    def gram(self, matrix: Tensor | None) -> None:
        self.products = None if matrix is None else UpperPanels.of(matrix)

    def add(self, inputs: Tensor) -> None:
        """Adds the tokens of [..., k], any float dtype; products and sums are at least float32.

        Raises:
            RuntimeError: `products` lie in a file.
        """
        if isinstance(self.products, StoredPanels):
            raise RuntimeError("InputStatistics.add: products must be in memory, got ones in a file")
        rows = inputs.detach().reshape(-1, inputs.shape[-1])
        if self.max_tokens is not None:
            rows = rows[: self.max_tokens - self.tokens]
        if rows.shape[0] == 0:
            return
        self.tokens += rows.shape[0]
        for begin in range(0, rows.shape[1], _COLUMNS_OF_SUMS):
            columns = slice(begin, begin + _COLUMNS_OF_SUMS)
            for part in rows[:, columns].split(_TOKENS_OF_SUMS):
                part = part.float()
                self.sum_squares[columns] += part.square().sum(0, dtype=torch.float64)
                if self.products is not None:
                    self.sum_abs[columns] += part.abs().sum(0, dtype=torch.float64)
        if self.products is not None:
            return_free_memory()  # copies do not fit into the holes that the forward leaves
            for part in rows.split(_TOKENS_OF_PRODUCTS):
                self.products.add_products(part.float())

    @cached_property
    def norms(self) -> Tensor:
        """float32 [k], the L2 norm over tokens of each input; read it once all tokens are in."""
        return self.sum_squares.sqrt().float()

    def permuted(self, index: Tensor) -> InputStatistics:
        """The statistics of the inputs in the order `index`, int64 [k]; the tokens are the same."""
        result = InputStatistics(0, hessian=False, max_tokens=self.max_tokens)
        result.tokens, result.sum_squares = self.tokens, self.sum_squares[index]
        result.sum_abs = self.sum_abs[index]
        gram = self.gram
        result.gram = None if gram is None else gram[index].index_select(1, index)
        return result

    def check(self, name: str) -> None:
        """Raises CalibrationError, naming the linear, if no token arrived or a sum is not finite."""
        if self.tokens == 0:
            raise CalibrationError(f"calibration never reached {name}: it saw 0 tokens")
        bad = ~self.sum_squares.isfinite()
        if bad.any():
            raise CalibrationError(
                f"calibration of {name}: activations must be finite, got a sum of squares of "
                f"{self.sum_squares[bad][0].item()} at input {int(bad.nonzero()[0])} after {self.tokens} tokens"
            )
        if self.products is not None and not self.products.load().is_finite():
            raise CalibrationError(f"calibration of {name}: X^T X must be finite, got an overflow of float32")


def store_products(statistics: Iterable[InputStatistics]) -> None:
    """Moves X^T X of all of them into one temporary file; those on other devices than the CPU stay where they are."""
    file: ScratchFile | None = None
    for known in statistics:
        products = known.products
        if isinstance(products, UpperPanels) and known.sum_squares.device.type == "cpu":
            file = file or ScratchFile()
            known.products = StoredPanels(file, products)
