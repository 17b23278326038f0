"""The face that every storage format shares: canonical tensors in, canonical tensors out, and honest byte counts."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch


class FormatError(ValueError):
    """Tensors that are not a valid weight of their format; names the tensor, the rule and the value."""


class PackedWeight(ABC):
    """A weight [n, k] in one storage format. Subclasses are frozen dataclasses of device-neutral tensors."""

    NAME: ClassVar[str]

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(n, k) = (out, in) of the dense weight."""

    @abstractmethod
    def tensors(self) -> dict[str, torch.Tensor]:
        """The canonical tensors by name: exactly what a checkpoint stores, nothing derived."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What else `from_tensors` needs (shape, bits, ...): JSON numbers and strings only."""

    @classmethod
    @abstractmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> "PackedWeight":
        """The inverse of `tensors` and `config`; validates, raises FormatError."""

    @abstractmethod
    def validate(self) -> None:
        """Raises FormatError unless every kernel may read these tensors without further checks."""

    @abstractmethod
    def to_dense(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The decoded weight [n, k]; a pruned weight is exactly 0."""

    @property
    def nbytes(self) -> int:
        """Bytes of the canonical tensors, equal to their bytes on disk."""
        return sum(t.numel() * t.element_size() for t in self.tensors().values())

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight of the dense matrix, zeros included."""
        n, k = self.shape
        return 8 * self.nbytes / max(n * k, 1)
