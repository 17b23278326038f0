"""`nn.Linear` over a 2:4 weight with dual-shift codes."""

import torch

from ..formats.sparse24_dual_shift import Sparse24DualShiftWeight
from ..ops.sparse24_dual_shift_linear import BITS, GROUP_COLUMNS, run_sparse24_dual_shift_linear
from ..reference.bitmap import unpack_bits
from ..reference.panels import from_quads
from ._sparse24 import Sparse24LinearBase
from .bitmap_dual_shift_linear import BitmapDualShiftLinear


class Sparse24DualShiftLinear(Sparse24LinearBase, BitmapDualShiftLinear):
    """A `BitmapDualShiftLinear` that stores exactly 2 of every 4 columns.

    On a GPU, uniform 4-bit codes in groups that are multiples of 32 run `ops.sparse24_dual_shift_linear`; other codes,
    and activation_bits = 8, run as a bitmap. Its canonical tensors stay beside the packed codes, 3.3 bits per weight:
    dense products decode from them.
    """

    FORMAT = Sparse24DualShiftWeight
    _DEVICE_OP = "sparse24_dual_shift_linear"

    def _takes_weight(self) -> bool:
        config = self.config
        whole = config["group_size"] % GROUP_COLUMNS == 0
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

    def _takes(self, x: torch.Tensor) -> bool:
        return self._activation_bits is None and super()._takes(x)

    def fused(self, x: torch.Tensor) -> torch.Tensor:
        if not self._takes(x):
            return super().fused(x)
        buffers, group_size = self._buffers, self._grid[1]
        names = ("packed", "packed_columns", "scale", "zero", "column_scale")
        weight = tuple([buffers[name] for name in names])
        bias = self._parameters["bias"]
        return run_sparse24_dual_shift_linear(x, weight, bias, self.out_features, self.in_features, group_size)  # type: ignore[arg-type]
