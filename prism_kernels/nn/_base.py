"""The face that every drop-in linear shares."""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from .. import dispatch, huge_pages
from ..formats._base import PackedWeight
from ..ops._dual_shift import require_activation_bits
from ..reference.panels import PANEL_ROWS

# On a CPU the dense path decodes and multiplies this much weight at a time: a tile is still in the cache when the GEMM
# reads it, and its buffer is used again, where a whole matrix would be fresh pages from the system on every call. The
# GEMM arranges x anew for each tile, so long rows do not make tiles flatter than this.
TILE_BYTES = 2 * 2**20
TILE_ROWS = 512


class PackedLinear(nn.Module):
    """`nn.Linear` over a packed weight.

    Buffers hold the canonical tensors under their format names. Few tokens run the fused op; from a measured number on,
    `forward` decodes the weight and calls the dense GEMM. It changes no state and never synchronizes. Weights are
    frozen; gradients flow to the input and the bias.

    activation_bits: None, or 8 for a quantized weight whose linear shall round its input to 8 bits as well; then the
    fused op serves any number of tokens. It is a way to run, not a part of the weight: no state dict holds it.
    """

    FORMAT: ClassVar[type[PackedWeight]]
    #: The buffers that the fused op takes, in its order; by default the canonical tensors.
    _KERNEL_TENSORS: ClassVar[tuple[str, ...]] = ()
    bias: nn.Parameter | None

    def __init__(
        self, weight: PackedWeight, bias: torch.Tensor | None = None, activation_bits: int | None = None
    ) -> None:
        super().__init__()
        n, k = weight.shape
        if bias is not None and tuple(bias.shape) != (n,):
            raise ValueError(f"{type(self).__name__}: bias must have shape [{n}], got {list(bias.shape)}")
        self.out_features, self.in_features = n, k
        self.config: dict[str, Any] = weight.config()
        self.activation_bits = activation_bits
        own = self._own_tensors(weight)
        self._tensor_names = tuple(own)
        self._kernel_tensors = self._KERNEL_TENSORS or self._tensor_names
        self._op_name = self._op()
        for name, tensor in own.items():
            self.register_buffer(name, tensor)
        for name, tensor in self._derived(weight).items():
            self.register_buffer(name, tensor, persistent=False)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach().clone()))
        self._settle()

    def _settle(self) -> None:
        """Whenever the packed tensors lie in new memory: into pages from which a core reads them faster."""
        huge_pages.collapse(buffer for buffer in self._buffers.values() if buffer is not None)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # of copies and of what was pickled
        self._settle()

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        super()._load_from_state_dict(*args, **options)
        self._settle()

    @classmethod
    def _own_tensors(cls, weight: PackedWeight) -> dict[str, torch.Tensor]:
        """The canonical tensors that are this module's buffers; the others are those of a module inside it."""
        return weight.tensors()

    @property
    def activation_bits(self) -> int | None:
        return self._activation_bits

    @activation_bits.setter
    def activation_bits(self, value: int | None) -> None:
        require_activation_bits(type(self).__name__, value, self.config.get("codebook"))
        self._activation_bits = value

    def _derived(self, weight: PackedWeight) -> dict[str, torch.Tensor]:
        """Tensors that kernels need beside the canonical ones, made once from them; never stored."""
        return {}

    def _arguments(self) -> tuple[tuple[torch.Tensor, ...], torch.Tensor | None]:
        """(the tensors of the fused op, bias), past the `__getattr__` of `nn.Module`: it takes half a microsecond for
        each, and at m = 1 a whole call of a small linear takes 20."""
        buffers: Any = self._buffers
        return tuple([buffers[name] for name in self._kernel_tensors]), self._parameters["bias"]

    @abstractmethod
    def fused(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., k] -> [..., n] in the dtype of x, straight from the packed weight."""

    @abstractmethod
    def decode(self, dtype: torch.dtype, begin: int = 0, end: int | None = None) -> torch.Tensor:
        """Rows `begin` to `end` of the dense weight, [rows, k], from this module's buffers, without validating them;
        `begin` is a multiple of 16, because weights are stored in panels of 16 rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., k] -> [..., n] in the dtype of x, by whichever path is faster for this many tokens."""
        if self._activation_bits is not None or not dispatch.prefers_dense(self._op_name, x):
            return self.fused(x)
        panels = TILE_BYTES // max(PANEL_ROWS * self.in_features * x.element_size(), 1)
        rows = max(TILE_ROWS, PANEL_ROWS * panels)
        if rows >= self.out_features or not x.is_cpu or torch.compiler.is_compiling():
            return F.linear(x, self.decode(x.dtype), self.bias)
        return self._tiled(x, rows)

    def _tiled(self, x: torch.Tensor, rows: int) -> torch.Tensor:
        """`forward` by `rows` rows of the weight at a time, a multiple of 16."""
        y = x.new_empty(*x.shape[:-1], self.out_features)
        for begin in range(0, self.out_features, rows):
            end = min(begin + rows, self.out_features)
            bias = None if self.bias is None else self.bias[begin:end]
            y[..., begin:end] = F.linear(x, self.decode(x.dtype, begin, end), bias)
        return y

    @classmethod
    def _op(cls) -> str:
        return f"{cls.FORMAT.NAME}_linear"

    @classmethod
    def from_linear(
        cls,
        linear: nn.Linear,
        mask: torch.Tensor | None = None,
        activation_bits: int | None = None,
        **options: Any,
    ) -> "PackedLinear":
        """Packs the weight of `linear` ([n, k]); `mask` bool [n, k] (True = kept), by default the non-zeros where the
        format is sparse; `activation_bits` as in the class. Options are those of the format's `pack`."""
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"{cls.__name__}.from_linear: linear must be an nn.Linear, got {type(linear).__name__}")
        with torch.no_grad():
            weight = cls.FORMAT.pack(linear.weight.detach(), mask=mask, **options)  # type: ignore[attr-defined]
        module = cls(weight, linear.bias)
        module.activation_bits = activation_bits
        return module

    def packed_weight(self) -> PackedWeight:
        """The canonical weight, sharing this module's buffers."""
        tensors = {name: getattr(self, name) for name in self._tensor_names}
        return self.FORMAT.from_tensors(tensors, self.config)

    def to_dense(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The decoded weight [n, k]."""
        return self.packed_weight().to_dense(dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of the weight on disk (bias not counted)."""
        return self.packed_weight().nbytes

    @property
    def resident_nbytes(self) -> int:
        """Bytes of the weight in memory: the canonical tensors and what kernels derive from them."""
        return sum(b.numel() * b.element_size() for b in self.buffers())

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / max(self.out_features * self.in_features, 1)

    def _apply(self, fn, recurse: bool = True):
        # `.to` must move the packed tensors but never cast or restride them: dtype and order are part of the format.
        kept = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)
        for name, before in kept.items():
            after = self._buffers[name]
            if after is not None and (after.dtype != before.dtype or not after.is_contiguous()):
                self._buffers[name] = before.to(after.device)
        self._settle()
        return self

    def extra_repr(self) -> str:
        details = ", ".join(f"{key}={value}" for key, value in self.config.items() if key != "shape")
        activations = "" if self.activation_bits is None else f", activation_bits={self.activation_bits}"
        return (
            f"{self.in_features} -> {self.out_features}, {self.FORMAT.NAME}({details}), "
            f"{self.bits_per_weight:.2f} bits/weight, bias={self.bias is not None}{activations}, {self.served_by()}"
        )

    def op_for(self, x: torch.Tensor) -> str:
        """The op whose crossover decides how this module runs on x, and which serves it where it runs fused."""
        return self._op_name

    def served_by(self) -> str:
        return self._served_by(self._op())

    def _served_by(self, op: str) -> str:
        rows = {row.device: row for row in dispatch.explain(op)}
        row = rows.get(self._device().type, rows["cpu"])
        return f"{row.backend} ({row.reason})"

    def _device(self) -> torch.device:
        return next(self.buffers()).device
