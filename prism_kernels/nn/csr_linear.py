"""`nn.Linear` over a CSR weight."""

from typing import Any

import torch

from ..formats._base import FormatError, PackedWeight
from ..formats.csr import CsrWeight
from ..formats.tiered import TieredWeight
from ..ops.csr_linear import csr_linear
from ..ops.tiered_linear import run_tiered_linear
from ..reference import tiered
from ..reference.panels import PANEL_ROWS, num_panels
from ._base import PackedLinear

#: From this share of kept weights on, tiles are smaller than columns and run faster (`python -m bench csr_linear`).
TILES_DENSITY = 1 / 16


class CsrLinear(PackedLinear):
    """A linear over a `CsrWeight`; lossless.

    CSR is how the weight is stored and exchanged. From a density of 1/16 on this module keeps it in 16x16 tiles instead
    (`ops.tiered_linear`), which are smaller in memory and several times faster; `packed_weight` and `state_dict` make
    the CSR tensors of them again, bit for bit. Below, it keeps CSR and runs `ops.csr_linear`.

    Shapes: x [..., in_features], float32, float16 or bfloat16, finite, to [..., out_features] in x.dtype.
    """

    FORMAT = CsrWeight

    values: torch.Tensor | None
    columns: torch.Tensor | None
    row_offsets: torch.Tensor | None
    tiers: torch.Tensor | None
    masks: torch.Tensor | None
    tile_values: torch.Tensor | None
    panel_offsets: torch.Tensor | None

    _TILES = ("tiers", "masks", "tile_values", "panel_offsets")

    def __init__(
        self, weight: PackedWeight, bias: torch.Tensor | None = None, activation_bits: int | None = None
    ) -> None:
        super().__init__(weight, bias, activation_bits)
        for name in self._TILES:
            self.register_buffer(name, None, persistent=False)
        self._hold(weight)

    def _hold(self, weight: PackedWeight) -> None:
        """Keeps the weight as tiles or as CSR, whichever is smaller."""
        assert isinstance(weight, CsrWeight)
        n, k = weight.shape
        self._nbytes = weight.nbytes
        held: dict[str, torch.Tensor] = weight.tensors()
        if weight.values.numel() >= TILES_DENSITY * max(n * k, 1):
            packed = TieredWeight.pack(weight.to_dense(), mask=weight.kept())
            tensors = (packed.tiers, packed.masks, packed.values, packed.panel_offsets())
            held = dict(zip(self._TILES, tensors, strict=True))
        for name in (*weight.tensors(), *self._TILES):
            setattr(self, name, held.get(name))

    @property
    def in_tiles(self) -> bool:
        """Whether memory holds tiles (True) or the CSR tensors."""
        return self.tiers is not None

    def packed_weight(self) -> CsrWeight:
        """The canonical weight; made anew where the module holds tiles."""
        shape = (self.out_features, self.in_features)
        if not self.in_tiles:
            return CsrWeight(self.values, self.columns, self.row_offsets, shape)  # type: ignore[arg-type]
        tiers, masks, _, _ = self._tiles()
        stored = (tiers == tiered.DENSE).unsqueeze(-1).repeat(1, 1, tiered.TILE_SIZE)
        stored[tiered.stores_mask(tiers)] = tiered.unpack_bits(masks)
        kept = tiered.from_tiles(stored, *shape)
        return CsrWeight.pack(torch.ops.prism.tiered_unpack.default(*self._tiles(), *shape), kept)

    def _tiles(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        assert self.tiers is not None and self.masks is not None
        assert self.tile_values is not None and self.panel_offsets is not None
        return self.tiers, self.masks, self.tile_values, self.panel_offsets

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def fused(self, x: torch.Tensor) -> torch.Tensor:
        if self.in_tiles:
            return run_tiered_linear(x, self._tiles(), self.bias, self.out_features, self.in_features)
        return csr_linear(x, self.values, self.columns, self.row_offsets, self.bias)  # type: ignore[arg-type]

    def decode(self, dtype: torch.dtype, begin: int = 0, end: int | None = None) -> torch.Tensor:
        end = self.out_features if end is None else end
        if self.in_tiles:
            tiers, masks, values, offsets = self._tiles()
            first, last = begin // PANEL_ROWS, num_panels(end)
            weight = (tiers[first:last], masks, values, offsets[first : last + 1])
            return torch.ops.prism.tiered_unpack.default(*weight, end - begin, self.in_features).to(dtype)
        offsets = self.row_offsets[begin : end + 1]  # type: ignore[index]
        return torch.ops.prism.csr_unpack.default(self.values, self.columns, offsets, self.in_features).to(dtype)

    def served_by(self) -> str:
        return f"in tiles, {super().served_by()}" if self.in_tiles else super().served_by()

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, tensor in self.packed_weight().tensors().items():
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
        names = ("values", "columns", "row_offsets")
        stored = {name: state_dict[prefix + name] for name in names if prefix + name in state_dict}
        own = {key: value for key, value in state_dict.items() if key.removeprefix(prefix) not in names}
        held = {name: self._buffers.pop(name) for name in names}  # what is left to load is the bias
        super()._load_from_state_dict(own, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)
        self._buffers.update(held)
        missing_keys.extend(prefix + name for name in names if name not in stored)
        if error_msgs or len(stored) < len(names):
            return
        try:
            device = self._device()
            tensors = {name: tensor.detach().clone().to(device) for name, tensor in stored.items()}
            self._hold(CsrWeight.from_tensors(tensors, self.config))
        except FormatError as error:
            error_msgs.append(f"{prefix.rstrip('.') or type(self).__name__}: {error}")
