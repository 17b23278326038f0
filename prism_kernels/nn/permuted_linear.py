"""`nn.Linear` over a packed weight whose columns stand in another order."""

from typing import Any

import torch

from ..formats._base import FormatError, PackedWeight
from ..formats.permuted import PermutedWeight, require_index
from ._base import PackedLinear
from .bitmap_dual_shift_linear import BitmapDualShiftLinear
from .bitmap_linear import BitmapLinear
from .sparse24_dual_shift_linear import Sparse24DualShiftLinear
from .sparse24_linear import Sparse24Linear

_MODULES: dict[str, type[PackedLinear]] = {
    kind.FORMAT.NAME: kind for kind in (BitmapDualShiftLinear, BitmapLinear, Sparse24DualShiftLinear, Sparse24Linear)
}


class PermutedLinear(PackedLinear):
    """y = base(x[..., index]) + bias: the input is put into the order of the packed columns, then `base` runs.

    The base is a module with its own paths and no bias; its result is rounded to x.dtype before the bias is added.
    activation_bits is that of the base.

    Example:
        >>> packed = PermutedLinear.from_linear(linear, mask, index=index, base="sparse24")
        >>> y = packed(x)
    """

    FORMAT = PermutedWeight

    index: torch.Tensor
    base: PackedLinear

    def __init__(
        self, weight: PackedWeight, bias: torch.Tensor | None = None, activation_bits: int | None = None
    ) -> None:
        assert isinstance(weight, PermutedWeight)
        super().__init__(weight, bias)
        self.base = _MODULES[weight.base.NAME](weight.base)
        self.activation_bits = activation_bits

    @classmethod
    def _own_tensors(cls, weight: PackedWeight) -> dict[str, torch.Tensor]:
        return {"index": weight.tensors()["index"]}

    @property
    def activation_bits(self) -> int | None:
        base = getattr(self, "base", None)
        return None if base is None else base.activation_bits

    @activation_bits.setter
    def activation_bits(self, value: int | None) -> None:
        base = getattr(self, "base", None)
        if base is not None:
            base.activation_bits = value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., k] -> [..., n] in the dtype of x, by whichever path of the base is faster for this many tokens."""
        return self._add_bias(self.base(x.index_select(-1, self.index)))

    def fused(self, x: torch.Tensor) -> torch.Tensor:
        return self._add_bias(self.base.fused(x.index_select(-1, self.index)))

    def _add_bias(self, y: torch.Tensor) -> torch.Tensor:
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def decode(self, dtype: torch.dtype, begin: int = 0, end: int | None = None) -> torch.Tensor:
        return self.base.decode(dtype, begin, end).index_select(1, self.index.argsort())

    def packed_weight(self) -> PermutedWeight:
        """The canonical weight, sharing this module's buffers."""
        return PermutedWeight(self.index, self.base.packed_weight())

    def served_by(self) -> str:
        return self.base.served_by()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        stored = state_dict.get(prefix + "index")
        if isinstance(stored, torch.Tensor):  # judged before it is copied: a cast would hide what does not fit
            try:
                require_index(self.FORMAT.NAME, stored, self.in_features, stored.device)
            except FormatError as error:
                arguments[-1].append(f"{prefix.rstrip('.') or type(self).__name__}: {error}")
                return
        super()._load_from_state_dict(state_dict, prefix, *arguments)
