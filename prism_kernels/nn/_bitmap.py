"""What the bitmap linears share: panel offsets that always follow the bitmap."""

from typing import Any

import torch

from ..formats._base import FormatError, PackedWeight
from ._base import PackedLinear


class BitmapLinearBase(PackedLinear):
    """Holds `panel_offsets`, derived from the bitmap when it is made and again whenever a state dict is loaded."""

    #: The tensor whose length depends on the mask.
    _STREAM: str

    def _derived(self, weight: PackedWeight) -> dict[str, torch.Tensor]:
        return {"panel_offsets": weight.panel_offsets()}  # type: ignore[attr-defined]

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
        stored = state_dict.get(prefix + self._STREAM)
        stream = getattr(self, self._STREAM)
        if isinstance(stored, torch.Tensor) and stored.dim() == 1 and stored.shape != stream.shape:
            setattr(self, self._STREAM, stream.new_empty(stored.shape, dtype=stored.dtype))
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        if error_msgs:
            return
        try:
            self.panel_offsets = self.packed_weight().panel_offsets()  # type: ignore[attr-defined]
        except FormatError as error:
            error_msgs.append(f"{prefix.rstrip('.') or type(self).__name__}: {error}")
