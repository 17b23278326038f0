"""`nn.Linear` over a 2:4 weight."""

import torch

from .. import dispatch
from ..formats.sparse24 import Sparse24Weight
from ..ops.sparse24_linear import run_sparse24_linear
from ..reference.bitmap import from_pairs, unpack_bits
from . import _cusparselt
from ._sparse24 import Sparse24LinearBase
from .bitmap_linear import BitmapLinear


class Sparse24Linear(Sparse24LinearBase, BitmapLinear):
    """A `BitmapLinear` that stores exactly 2 of every 4 columns.

    On a GPU, 16-bit weights run `ops.sparse24_linear` for few tokens, the dense product for more, and cuSPARSELt from
    the number of tokens on at which `crossovers.json` says that it wins (`dispatch.cusparselt_crossover`). For that the
    weight is held once more, at 9 bits per weight. It has no gradient: where one is needed, the dense product runs.
    """

    FORMAT = Sparse24Weight
    _DEVICE_OP = "sparse24_linear"
    _PACKED = (*Sparse24LinearBase._PACKED, "compressed")

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

    def _uses_cusparselt(self) -> bool:
        fits = _cusparselt.takes(self.out_features, self.in_features, self.values.dtype)
        return fits and _cusparselt.is_available(self._device()) and dispatch.uses_cusparselt(self._DEVICE_OP)

    def _takes(self, x: torch.Tensor) -> bool:
        return self._buffers["packed"] is not None and x.dtype == self.values.dtype

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
        if not self._takes(x):
            return super().fused(x)
        buffers = self._buffers
        weight = (buffers["packed"], buffers["packed_columns"])
        return run_sparse24_linear(x, weight, self._parameters["bias"], self.out_features, self.in_features)  # type: ignore[arg-type]
