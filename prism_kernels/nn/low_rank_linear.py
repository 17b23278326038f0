"""`nn.Linear` over a weight of low rank, alone or added to another packed linear."""

from typing import Any

import torch
import torch.nn.functional as F

from .. import dispatch
from ..formats._base import PackedWeight
from ..formats.low_rank import LowRankWeight
from ..ops.low_rank_linear import low_rank_linear
from ._base import PackedLinear
from .bitmap_dual_shift_linear import BitmapDualShiftLinear
from .bitmap_linear import BitmapLinear
from .csr_linear import CsrLinear
from .dual_shift_linear import DualShiftLinear
from .permuted_linear import PermutedLinear
from .sparse24_dual_shift_linear import Sparse24DualShiftLinear
from .sparse24_linear import Sparse24Linear
from .tiered_linear import TieredLinear

_MODULES: dict[str, type[PackedLinear]] = {
    kind.FORMAT.NAME: kind
    for kind in (
        BitmapDualShiftLinear,
        BitmapLinear,
        CsrLinear,
        DualShiftLinear,
        PermutedLinear,
        Sparse24DualShiftLinear,
        Sparse24Linear,
        TieredLinear,
    )
}


class LowRankLinear(PackedLinear):
    """y = x @ a^T @ b^T + bias, and base(x) where the weight has a base: sparse, quantized and low rank in one layer.

    Few tokens run both products in one compiled call; from a measured number on, two dense GEMMs do. The base is the
    module `base` with its own paths; its result and that of the factors are rounded to x.dtype before they are added.
    activation_bits is that of the base.

    Example:
        >>> packed = LowRankLinear.from_linear(linear, rank=64, base=BitmapWeight.pack(linear.weight, mask))
        >>> y = packed(x)
    """

    FORMAT = LowRankWeight

    a: torch.Tensor
    b: torch.Tensor
    base: PackedLinear | None

    def __init__(
        self, weight: PackedWeight, bias: torch.Tensor | None = None, activation_bits: int | None = None
    ) -> None:
        assert isinstance(weight, LowRankWeight)
        super().__init__(LowRankWeight(weight.a, weight.b), bias)
        self.config = weight.config()
        self.base = None if weight.base is None else _MODULES[weight.base.NAME](weight.base)
        self.activation_bits = activation_bits

    @property
    def activation_bits(self) -> int | None:
        base = getattr(self, "base", None)
        return None if base is None else base.activation_bits

    @activation_bits.setter
    def activation_bits(self, value: int | None) -> None:
        base = getattr(self, "base", None)
        if base is not None:
            base.activation_bits = value
        elif value is not None:
            raise ValueError(f"LowRankLinear: activation_bits must be None without a quantized base, got {value}")

    def fused(self, x: torch.Tensor) -> torch.Tensor:
        return self._add_base(x, low_rank_linear(x, self.a, self.b, self.bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., k] -> [..., n] in the dtype of x, by whichever path is faster for this many tokens."""
        return self._tiled(x) if dispatch.prefers_dense(self._op(), x) else self.fused(x)

    def _tiled(self, x: torch.Tensor, rows: int = 0) -> torch.Tensor:
        """The dense path: two GEMMs over the factors, whatever `rows` says."""
        return self._add_base(x, F.linear(F.linear(x, self.a.to(x.dtype)), self.b.to(x.dtype), self.bias))

    def _add_base(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y if self.base is None else y + self.base(x)

    def decode(self, dtype: torch.dtype, begin: int = 0, end: int | None = None) -> torch.Tensor:
        dense = self.b[begin:end].float() @ self.a.float()
        if self.base is not None:
            dense += self.base.decode(torch.float32, begin, end)
        return dense.to(dtype)

    def packed_weight(self) -> LowRankWeight:
        """The canonical weight, sharing this module's buffers."""
        return LowRankWeight(self.a, self.b, None if self.base is None else self.base.packed_weight())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        for name in ("a", "b"):  # another rank
            stored, own = state_dict.get(prefix + name), getattr(self, name)
            if isinstance(stored, torch.Tensor) and stored.dim() == 2 and stored.dtype == own.dtype:
                fits = stored.shape[1] == own.shape[1] if name == "a" else stored.shape[0] == own.shape[0]
                if fits and stored.shape != own.shape:
                    setattr(self, name, own.new_empty(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        if self.a.shape[0] != self.b.shape[1]:
            rule = f"low_rank: b must have {self.a.shape[0]} columns, got {self.b.shape[1]}"
            arguments[-1].append(f"{prefix.rstrip('.') or type(self).__name__}: {rule}")
        self.config["rank"] = self.a.shape[0]
