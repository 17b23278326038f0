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
    `_DEVICE_OP` for 16-bit activations. What of the canonical tensors nothing reads there is dropped, and made again,
    bit for bit, for state dicts and when the module moves on.
    """

    _DEVICE_OP: ClassVar[str]
    #: Buffers that belong to one device: derived, never stored, never moved, None where the op does not serve.
    _PACKED: ClassVar[tuple[str, ...]] = ("packed", "packed_columns")
    #: Buffers that are None while the weight is packed; `_restored` makes them.
    _DROPPED: ClassVar[tuple[str, ...]] = ()
    _packed_nbytes = 0

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

    def _restored(self) -> dict[str, torch.Tensor]:
        """The buffers _DROPPED, from those of _PACKED."""
        return {}

    @property
    def is_packed(self) -> bool:
        """Whether this module holds the order of sparse tensor cores."""
        return self._buffers["packed"] is not None

    def _pack_for_device(self) -> None:
        """Packs canonical tensors where their device wants it; they are all there, and no packing is."""
        if not (self._has_packing(self._device()) and self._takes_weight()):
            return
        weight = self.packed_weight()  # validates: the kernels that pack and multiply check nothing
        self._packed_nbytes = weight.nbytes
        self._buffers.update(self._pack())
        self._buffers.update(dict.fromkeys(self._DROPPED))

    def _unpack(self) -> None:
        """Back to the canonical tensors alone."""
        if self.is_packed:
            self._buffers.update(self._restored())
            self._buffers.update(dict.fromkeys(self._PACKED))

    def packed_weight(self) -> PackedWeight:
        """The canonical weight; what was dropped is made anew."""
        if not self.is_packed:
            return super().packed_weight()
        tensors = {**self._buffers, **self._restored()}
        return self.FORMAT.from_tensors({name: tensors[name] for name in self._tensor_names}, self.config)  # type: ignore[misc]

    @property
    def nbytes(self) -> int:
        return self._packed_nbytes if self.is_packed else super().nbytes

    def _apply(self, fn, recurse: bool = True):
        before = self._device()
        after = fn(torch.empty(0, dtype=torch.uint8, device=before)).device
        if after != before:
            self._unpack()
        held = {name: self._buffers[name] for name in self._PACKED}
        self._buffers.update(dict.fromkeys(self._PACKED))
        try:
            super()._apply(fn, recurse)
        finally:
            self._buffers.update(held)
        if after != before and before.type != "meta":  # what leaves meta has no weights before they are loaded
            self._pack_for_device()
        return self

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.is_packed:
            for name, tensor in self._restored().items():
                if name in self._tensor_names:
                    destination[prefix + name] = tensor

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
        self._unpack()
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if not error_msgs:
            self._pack_for_device()

    def op_for(self, x: torch.Tensor) -> str:
        return self._DEVICE_OP if self._takes(x) else self._op_name

    def _takes(self, x: torch.Tensor) -> bool:
        """Whether `_DEVICE_OP` serves x."""
        return self.is_packed and x.dtype in (torch.float16, torch.bfloat16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self._takes(x):
            return super().forward(x)
        if dispatch.prefers_dense(self._DEVICE_OP, x):
            return F.linear(x, self.decode(x.dtype), self.bias)
        return self.fused(x)

    def served_by(self) -> str:
        return self._served_by(self._DEVICE_OP) if self.is_packed else super().served_by()
