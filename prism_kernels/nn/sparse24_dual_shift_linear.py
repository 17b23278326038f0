"""`nn.Linear` over a 2:4 weight with dual-shift codes."""

import torch
import torch.nn.functional as F

from ..formats.sparse24_dual_shift import Sparse24DualShiftWeight
from ..ops._sparse24 import BITS, GROUP_COLUMNS
from ..ops.sparse24_dual_shift_linear import run_sparse24_dual_shift_linear
from ..ops.sparse24_unpack import stored_elements
from ..reference.bitmap import unpack_bits
from ..reference.panels import PANEL_ROWS, from_quads, num_panels
from ._base import PackedLinear
from ._sparse24 import Sparse24LinearBase
from .bitmap_dual_shift_linear import BitmapDualShiftLinear


class Sparse24DualShiftLinear(Sparse24LinearBase, BitmapDualShiftLinear):
    """A `BitmapDualShiftLinear` that stores exactly 2 of every 4 columns.

    On a GPU, uniform 4-bit codes in groups that are multiples of 32 run `ops.sparse24_dual_shift_linear`. They are held
    in its order alone, in as many bits as on a CPU (3.3 per weight with groups of 64); the bitmap and its codes are
    made again for state dicts, checkpoints and other devices. float32 activations decode the weight in every call.
    Other codes, and activation_bits = 8, run as a bitmap and hold only that; setting activation_bits changes which of
    the two is held.
    """

    FORMAT = Sparse24DualShiftWeight
    _DEVICE_OP = "sparse24_dual_shift_linear"
    _DROPPED = ("bitmap", "codes", "panel_offsets")

    @property
    def activation_bits(self) -> int | None:
        return self._activation_bits

    @activation_bits.setter
    def activation_bits(self, value: int | None) -> None:
        before = getattr(self, "_activation_bits", None)
        PackedLinear.activation_bits.fset(self, value)  # type: ignore[attr-defined]
        if value == before or "packed" not in self._buffers:  # a module under construction packs at its end
            return
        if value is None:
            self._pack_for_device()
        else:
            self._unpack()

    def _takes_weight(self) -> bool:
        config = self.config
        whole = config["group_size"] % GROUP_COLUMNS == 0 and self._activation_bits is None
        return whole and config["bits"] == BITS and config["codebook"] == "uniform"

    def _pack(self) -> dict[str, torch.Tensor]:
        n, k = self.out_features, self.in_features
        # Decoded with a scale of 1 and zero points of 0 a code is itself; small whole numbers are exact in float16.
        grid = (torch.ones_like(self.scale), torch.zeros_like(self.zero), torch.ones_like(self.column_scale))
        tensors = (self.bitmap, self.codes, self.panel_offsets, *grid)
        codes = torch.ops.prism.bitmap_dual_shift_dequantize.default(*tensors, n, *self._grid, torch.float16)
        mask = from_quads(unpack_bits(self.bitmap), n, k)
        packed, columns = torch.ops.prism.sparse24_pack.default(codes.to(torch.uint8), mask)
        return {"packed": packed, "packed_columns": columns}

    def _restored(self) -> dict[str, torch.Tensor]:
        shape = (self.out_features, self.in_features)
        packed, columns = self._buffers["packed"], self._buffers["packed_columns"]
        codes = torch.ops.prism.sparse24_unpack.default(packed, columns, *shape)
        stored = stored_elements(columns, *shape)  # type: ignore[arg-type]
        tensors = torch.ops.prism.bitmap_dual_shift_pack.default(codes, stored, BITS)
        return dict(zip(self._DROPPED, tensors, strict=True))

    def decode(self, dtype: torch.dtype, begin: int = 0, end: int | None = None) -> torch.Tensor:
        if not self.is_packed:
            return super().decode(dtype, begin, end)
        end = self.out_features if end is None else end
        panels, buffers = slice(begin // PANEL_ROWS, num_panels(end)), self._buffers
        rows = [buffers[name][panels] for name in ("packed", "packed_columns", "scale", "zero")]  # type: ignore[index]
        overload = torch.ops.prism.sparse24_dual_shift_dequantize.default
        return overload(*rows, buffers["column_scale"], end - begin, self._grid[1], dtype)

    def fused(self, x: torch.Tensor) -> torch.Tensor:
        if not self.is_packed:
            return super().fused(x)
        if not self._takes(x):
            return F.linear(x, self.decode(x.dtype), self.bias)
        buffers, group_size = self._buffers, self._grid[1]
        names = ("packed", "packed_columns", "scale", "zero", "column_scale")
        weight = tuple([buffers[name] for name in names])
        bias = self._parameters["bias"]
        return run_sparse24_dual_shift_linear(x, weight, bias, self.out_features, self.in_features, group_size)  # type: ignore[arg-type]
