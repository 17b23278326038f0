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
    the number of tokens on at which `crossovers.json` says that it wins (`dispatch.cusparselt_crossover`). cuSPARSELt
    has no gradient: where one is needed, the dense product runs, as it does for activations of another dtype than the
    weight's.

    The weight takes 9 bits per element there as on a CPU. cuSPARSELt reads an order of its own, 9 bits more: with both,
    18 bits, a module is larger than the dense weight. So its copy is made by the first call that is long enough, which
    also measures cuSPARSELt's algorithms (once per shape) and synchronizes; where memory is short, `cusparselt = False`
    keeps it from being made and `release_cusparselt` drops it. Calls that are captured into a CUDA graph or compiled
    never make it, they run the dense product where it is missing: `prepare_cusparselt` makes it before.
    `resident_nbytes` counts it.
    """

    FORMAT = Sparse24Weight
    _DEVICE_OP = "sparse24_linear"
    _PACKED = (*Sparse24LinearBase._PACKED, "compressed")
    _DROPPED = ("bitmap", "values", "panel_offsets")

    #: Algorithms of cuSPARSELt by number of tokens; empty before its copy of the weight is made.
    _algorithms: tuple[int, ...] = ()
    _allows_cusparselt = True

    def _takes_weight(self) -> bool:
        return self.values.dtype in (torch.float16, torch.bfloat16)

    def _pack(self) -> dict[str, torch.Tensor]:
        n, k = self.out_features, self.in_features
        dense, mask = self.decode(self.values.dtype), from_pairs(unpack_bits(self.bitmap), n, k)
        packed, columns = torch.ops.prism.sparse24_pack.default(dense, mask)
        return {"packed": packed, "packed_columns": columns}

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

    @property
    def cusparselt(self) -> bool:
        """Whether calls of many tokens may make and use cuSPARSELt's copy of the weight; a way to run, never stored."""
        return self._allows_cusparselt

    @cusparselt.setter
    def cusparselt(self, value: bool) -> None:
        if not isinstance(value, bool):
            raise TypeError(f"Sparse24Linear: cusparselt must be a bool, got {value!r}")
        self._allows_cusparselt = value
        if not value:
            self.release_cusparselt()

    def prepare_cusparselt(self) -> bool:
        """Makes cuSPARSELt's copy of the weight now, where cuSPARSELt serves this module and `cusparselt` allows it;
        returns whether the copy is there. Synchronizes; never while a CUDA graph is captured."""
        if self._buffers["compressed"] is None and self._uses_cusparselt():
            with torch.inference_mode(False), torch.no_grad():
                compressed = _cusparselt.compress(self.decode(self._packed_dtype()))
            self._algorithms = _cusparselt.search(compressed, self.out_features, self.in_features)
            self._buffers["compressed"] = compressed
        return self._buffers["compressed"] is not None

    def release_cusparselt(self) -> None:
        """Drops cuSPARSELt's copy of the weight; the next call of many tokens makes it again unless `cusparselt` is
        False."""
        self._buffers["compressed"] = None
        self._algorithms = ()

    def _uses_cusparselt(self) -> bool:
        if not (self._allows_cusparselt and self.is_packed):
            return False
        fits = _cusparselt.takes(self.out_features, self.in_features, self._packed_dtype())
        return fits and _cusparselt.is_available(self._device()) and dispatch.uses_cusparselt(self._DEVICE_OP)

    def _takes(self, x: torch.Tensor) -> bool:
        return self.is_packed and x.dtype == self._packed_dtype()

    def takes_cusparselt(self, x: torch.Tensor) -> bool:
        """Whether `forward` gives x to cuSPARSELt, once its copy of the weight is there."""
        if not (self._takes(x) and dispatch.prefers_cusparselt(self._DEVICE_OP, x)):
            return False
        trained = x.requires_grad or (self.bias is not None and self.bias.requires_grad)
        return not (trained and torch.is_grad_enabled()) and self._uses_cusparselt()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.takes_cusparselt(x) and (self._buffers["compressed"] is not None or self._prepared_for(x)):
            compressed = self._buffers["compressed"]
            return _cusparselt.multiply(x, compressed, self._algorithms, self.bias, self.out_features)  # type: ignore[arg-type]
        return super().forward(x)

    def _prepared_for(self, x: torch.Tensor) -> bool:
        return _cusparselt.may_prepare(x) and self.prepare_cusparselt()

    def served_by(self) -> str:
        compressed = self._buffers["compressed"]
        held = "" if compressed is None else f", cuSPARSELt's copy holds {compressed.nbytes} bytes"
        return super().served_by() + held

    def fused(self, x: torch.Tensor) -> torch.Tensor:
        if not self.is_packed:
            return super().fused(x)
        if not self._takes(x):
            return F.linear(x, self.decode(x.dtype), self.bias)
        buffers = self._buffers
        weight = (buffers["packed"], buffers["packed_columns"])
        return run_sparse24_linear(x, weight, self._parameters["bias"], self.out_features, self.in_features)  # type: ignore[arg-type]
