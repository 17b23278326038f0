"""`nn.Linear` over a 2:4 weight."""

import torch
import torch.nn.functional as F

from .. import dispatch
from ..formats.sparse24 import Sparse24Weight
from ..ops.sparse24_linear import run_sparse24_linear
from ..ops.sparse24_unpack import stored_elements
from ..reference.bitmap import from_pairs, unpack_bits
from ..reference.panels import PANEL_ROWS, num_panels
from . import _cusparselt
from ._sparse24 import Sparse24LinearBase
from .bitmap_linear import BitmapLinear


class Sparse24Linear(Sparse24LinearBase, BitmapLinear):
    """A `BitmapLinear` that stores exactly 2 of every 4 columns.

    On a GPU, 16-bit weights run `ops.sparse24_linear` for few tokens, the dense product for more, and cuSPARSELt from
    the number of tokens on at which `crossovers.json` says that it wins (`dispatch.cusparselt_crossover`). It holds 9
    bits per weight there as on a CPU, and 9 more for cuSPARSELt where that serves. cuSPARSELt has no gradient: where
    one is needed, the dense product runs, as it does for activations of another dtype than the weight's.
    """

    FORMAT = Sparse24Weight
    _DEVICE_OP = "sparse24_linear"
    _PACKED = (*Sparse24LinearBase._PACKED, "compressed")
    _DROPPED = ("bitmap", "values", "panel_offsets")

    #: Algorithms of cuSPARSELt by number of tokens; empty where it does not serve.
    _algorithms: tuple[int, ...] = ()

    def _takes_weight(self) -> bool:
        return self.values.dtype in (torch.float16, torch.bfloat16)

    def _pack(self) -> dict[str, torch.Tensor]:
        n, k = self.out_features, self.in_features
        dense, mask = self.decode(self.values.dtype), from_pairs(unpack_bits(self.bitmap), n, k)
        packed, columns = torch.ops.prism.sparse24_pack.default(dense, mask)
        held = {"packed": packed, "packed_columns": columns}
        if self._uses_cusparselt():
            held["compressed"] = _cusparselt.compress(dense)
            self._algorithms = _cusparselt.search(held["compressed"], n, k)
        return held

    def _restored(self) -> dict[str, torch.Tensor]:
        shape = (self.out_features, self.in_features)
        stored = stored_elements(self._buffers["packed_columns"], *shape)  # type: ignore[arg-type]
        tensors = torch.ops.prism.bitmap_pack.default(self.decode(self._packed_dtype()), stored)
        return dict(zip(self._DROPPED, tensors, strict=True))

    def _packed_dtype(self) -> torch.dtype:
        return self._buffers["packed"].dtype  # type: ignore[union-attr]

    def decode(self, dtype: torch.dtype, begin: int = 0, end: int | None = None) -> torch.Tensor:
        if not self.is_packed:
            return super().decode(dtype, begin, end)
        end = self.out_features if end is None else end
        panels = slice(begin // PANEL_ROWS, num_panels(end))
        packed, columns = self._buffers["packed"][panels], self._buffers["packed_columns"][panels]  # type: ignore[index]
        return torch.ops.prism.sparse24_unpack.default(packed, columns, end - begin, self.in_features).to(dtype)

    def _uses_cusparselt(self) -> bool:
        fits = _cusparselt.takes(self.out_features, self.in_features, self.values.dtype)
        return fits and _cusparselt.is_available(self._device()) and dispatch.uses_cusparselt(self._DEVICE_OP)

    def _takes(self, x: torch.Tensor) -> bool:
        return self.is_packed and x.dtype == self._packed_dtype()

    def takes_cusparselt(self, x: torch.Tensor) -> bool:
        """Whether `forward` gives x to cuSPARSELt."""
        many = self._buffers["compressed"] is not None and dispatch.prefers_cusparselt(self._DEVICE_OP, x)
        if not (many and self._takes(x)):
            return False
        trained = x.requires_grad or (self.bias is not None and self.bias.requires_grad)
        return not (trained and torch.is_grad_enabled())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.takes_cusparselt(x):
            compressed = self._buffers["compressed"]
            return _cusparselt.multiply(x, compressed, self._algorithms, self.bias, self.out_features)  # type: ignore[arg-type]
        return super().forward(x)

    def fused(self, x: torch.Tensor) -> torch.Tensor:
        if not self.is_packed:
            return super().fused(x)
        if not self._takes(x):
            return F.linear(x, self.decode(x.dtype), self.bias)
        buffers = self._buffers
        weight = (buffers["packed"], buffers["packed_columns"])
        return run_sparse24_linear(x, weight, self._parameters["bias"], self.out_features, self.in_features)  # type: ignore[arg-type]
