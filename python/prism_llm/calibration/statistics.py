"""What calibration knows about the input X [tokens, k] of one or several linears."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

_TOKENS_AT_A_TIME = 128


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
        sum_abs: float64 [k], sum over tokens of |x_j|; only where `gram` is.
        gram: float32 [k, k], X^T X, or None.
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
        self.gram = torch.zeros(in_features, in_features, device=device) if hessian else None

    def add(self, inputs: Tensor) -> None:
        """Adds the tokens of [..., k], any float dtype; products and sums are at least float32."""
        rows = inputs.detach().reshape(-1, inputs.shape[-1])
        if self.max_tokens is not None:
            rows = rows[: self.max_tokens - self.tokens]
        if rows.shape[0] == 0:
            return
        self.tokens += rows.shape[0]
        # Few tokens at a time: the copies in float32 and float64 are larger than the activations themselves.
        for part in rows.split(_TOKENS_AT_A_TIME):
            part = part.float()
            self.sum_squares += part.square().sum(0, dtype=torch.float64)
            if self.gram is not None:
                self.sum_abs += part.abs().sum(0, dtype=torch.float64)
                self.gram.addmm_(part.T, part)

    @cached_property
    def norms(self) -> Tensor:
        """float32 [k], the L2 norm over tokens of each input; read it once all tokens are in."""
        return self.sum_squares.sqrt().float()

    def permuted(self, index: Tensor) -> InputStatistics:
        """The statistics of the inputs in the order `index`, int64 [k]; the tokens are the same."""
        result = InputStatistics(0, hessian=False, max_tokens=self.max_tokens)
        result.tokens, result.sum_squares = self.tokens, self.sum_squares[index]
        result.sum_abs = self.sum_abs[index]
        result.gram = None if self.gram is None else self.gram[index].index_select(1, index)
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
        if self.gram is not None and not bool(torch.stack(torch.aminmax(self.gram)).isfinite().all()):
            raise CalibrationError(f"calibration of {name}: X^T X must be finite, got an overflow of float32")
