"""What the linears over streams of variable length share: derived tensors that always follow the canonical ones."""

from typing import Any, ClassVar

import torch

from ..formats._base import FormatError
from ._base import PackedLinear


class DerivedLinear(PackedLinear):
    """Derives what kernels need beside the canonical tensors anew whenever a state dict is loaded."""

    #: Tensors whose first size depends on what was pruned; a state dict may hold others than the module's own.
    _STREAMS: ClassVar[tuple[str, ...]]

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
        for name in self._STREAMS:
            stored, own = state_dict.get(prefix + name), getattr(self, name)
            if isinstance(stored, torch.Tensor) and stored.shape[1:] == own.shape[1:] and stored.shape != own.shape:
                setattr(self, name, own.new_empty(stored.shape, dtype=stored.dtype))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if error_msgs:
            return
        try:
            for name, tensor in self._derived(self.packed_weight()).items():
                setattr(self, name, tensor)
        except FormatError as error:
            error_msgs.append(f"{prefix.rstrip('.') or type(self).__name__}: {error}")
