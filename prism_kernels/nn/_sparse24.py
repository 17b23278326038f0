"""What the 2:4 linears share: on a GPU a second packing, in the order of its sparse tensor cores."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from .. import dispatch
from ..formats._base import PackedWeight
from ._bitmap import BitmapLinearBase


class Sparse24LinearBase(BitmapLinearBase):
    """A bitmap linear that stores exactly 2 of every 4 columns.

    On a CPU it is one: 2:4 and a 50 % bitmap cost the same bytes, and the expansion is not what limits. When its weight
    lands on a GPU (made there, moved, or loaded) it derives the order of `reference/sparse24.py` once and runs the op
    `_DEVICE_OP` for 16-bit activations; what that op does not take still runs as a bitmap. The canonical tensors stay
    beside it, so that state dicts, decoding and moving back need nothing else; `resident_nbytes` counts both.
    """

    _DEVICE_OP: ClassVar[str]
    #: Buffers that belong to one device: derived, never stored, never moved, None where the op does not serve.
    _PACKED: ClassVar[tuple[str, ...]] = ("packed", "packed_columns")

    def __init__(
        self, weight: PackedWeight, bias: torch.Tensor | None = None, activation_bits: int | None = None
    ) -> None:
        super().__init__(weight, bias, activation_bits)
        for name in self._PACKED:
            self.register_buffer(name, None, persistent=False)
        self._pack_for_device()

    def _has_packing(self, device: torch.device) -> bool:
        """Whether weights on `device` are packed for sparse tensor cores."""
        return device.type == "cuda" and dispatch.has_compiled(self._DEVICE_OP, "cuda")

    def _takes_weight(self) -> bool:
        """Whether `_DEVICE_OP` takes this module's weight at all."""
        raise NotImplementedError

    def _pack(self) -> dict[str, torch.Tensor]:
        """The buffers _PACKED of the canonical tensors, which are valid."""
        raise NotImplementedError

    def _pack_for_device(self) -> None:
        packed: dict[str, torch.Tensor] = {}
        if self._has_packing(self._device()) and self._takes_weight():
            self.packed_weight()  # validates: the kernels that pack and multiply check nothing
            packed = self._pack()
        for name in self._PACKED:
            self._buffers[name] = packed.get(name)

    def _apply(self, fn, recurse: bool = True):
        before = self._device()
        held = {name: self._buffers[name] for name in self._PACKED}
        self._buffers.update(dict.fromkeys(self._PACKED))
        try:
            super()._apply(fn, recurse)
        finally:
            if self._device() == before:
                self._buffers.update(held)
        if self._device() != before and before.type != "meta":  # what leaves meta has no weights before they are loaded
            self._pack_for_device()
        return self

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if not error_msgs:
            self._pack_for_device()

    def op_for(self, x: torch.Tensor) -> str:
        return self._DEVICE_OP if self._takes(x) else self._op_name

    def _takes(self, x: torch.Tensor) -> bool:
        """Whether `_DEVICE_OP` serves x."""
        return self._buffers["packed"] is not None and x.dtype in (torch.float16, torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self._takes(x):
            return super().forward(x)
        if dispatch.prefers_dense(self._DEVICE_OP, x):
            return F.linear(x, self.decode(x.dtype), self.bias)
        return self.fused(x)

    def served_by(self) -> str:
        if self._buffers["packed"] is None:
            return super().served_by()
        return self._served_by(self._DEVICE_OP)
