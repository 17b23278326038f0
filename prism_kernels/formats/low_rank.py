"""Low rank: a weight as the product of two narrow factors, alone or as the correction of another packed weight."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..ops._check import FLOAT_DTYPES
from ._base import PackedWeight
from ._bitmap import shape_of
from ._grid import require, require_layout
from .bitmap import BitmapWeight
from .bitmap_dual_shift import BitmapDualShiftWeight
from .csr import CsrWeight
from .dual_shift import DualShiftWeight
from .permuted import PermutedWeight
from .sparse24 import Sparse24Weight
from .sparse24_dual_shift import Sparse24DualShiftWeight
from .tiered import TieredWeight

#: What a low-rank weight may correct, by name.
BASES: dict[str, type[PackedWeight]] = {
    kind.NAME: kind
    for kind in (
        BitmapDualShiftWeight,
        BitmapWeight,
        CsrWeight,
        DualShiftWeight,
        PermutedWeight,
        Sparse24DualShiftWeight,
        Sparse24Weight,
        TieredWeight,
    )
}
_PREFIX = "base."


@dataclass(frozen=True, eq=False)
class LowRankWeight(PackedWeight):
    """The weight b @ a, or base + b @ a: sparse, quantized and low rank in one.

    Attributes:
        a: [rank, k], b: [n, rank]; both float32, float16 or bfloat16.
        base: a packed weight [n, k] of another format, or None.

    Bytes: rank * (n + k) * element size, and those of the base.
    """

    NAME: ClassVar[str] = "low_rank"

    a: torch.Tensor
    b: torch.Tensor
    base: PackedWeight | None = None

    @classmethod
    def pack(
        cls,
        weight: torch.Tensor,
        mask: torch.Tensor | None = None,
        *,
        rank: int,
        base: PackedWeight | None = None,
    ) -> "LowRankWeight":
        """The best approximation of that rank (truncated SVD) of weight [n, k], or of weight - base.

        Args:
            weight: [n, k], float32, float16 or bfloat16; the factors get its dtype, each half of the singular values.
            mask: None; a product of factors has no zeros to keep. Prune the base.
            rank: between 0 and min(n, k).
            base: what the factors are added to.

        Raises:
            ValueError: an argument that does not fit.
        """
        _check_pack(weight, mask, rank, base)
        target = weight.float() if base is None else weight.float() - base.to_dense(torch.float32)
        u, s, vh = torch.linalg.svd(target, full_matrices=False)
        half = s[:rank].sqrt()
        a, b = half[:, None] * vh[:rank], u[:, :rank] * half
        return cls(a.to(weight.dtype).contiguous(), b.to(weight.dtype).contiguous(), base)

    @property
    def shape(self) -> tuple[int, int]:
        return self.b.shape[0], self.a.shape[1]

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    def tensors(self) -> dict[str, torch.Tensor]:
        inner = {} if self.base is None else self.base.tensors()
        return {"a": self.a, "b": self.b} | {_PREFIX + name: tensor for name, tensor in inner.items()}

    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = {"shape": list(self.shape), "rank": self.rank}
        if self.base is not None:
            config["base"] = {"format": self.base.NAME, **self.base.config()}
        return config

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> "LowRankWeight":
        outer = {name: tensor for name, tensor in tensors.items() if not name.startswith(_PREFIX)}
        inner = {name.removeprefix(_PREFIX): t for name, t in tensors.items() if name not in outer}
        require(sorted(outer) == ["a", "b"], cls.NAME, "tensors", "be a, b and those of the base", sorted(tensors))
        base, given = None, dict(config)
        described = given.pop("base", None)
        n, k = shape_of(cls.NAME, given, ("shape", "rank"))
        if described is not None:
            sound = isinstance(described, dict) and described.get("format") in BASES
            require(sound, cls.NAME, "base", f"name a format of {', '.join(BASES)}", repr(described))
            options = {key: value for key, value in described.items() if key != "format"}
            base = BASES[described["format"]].from_tensors(inner, options)
        else:
            require(not inner, cls.NAME, "tensors", "have none of a base that the config lacks", sorted(inner))
        weight = cls(outer["a"], outer["b"], base)
        weight.validate()
        require(weight.shape == (n, k), cls.NAME, "shape", f"be {list(weight.shape)}", [n, k])
        require(weight.rank == given["rank"], cls.NAME, "rank", f"be {weight.rank}", repr(given["rank"]))
        return weight

    def validate(self) -> None:
        name = self.NAME
        for what, tensor in (("a", self.a), ("b", self.b)):
            require(isinstance(tensor, torch.Tensor), name, what, "be a tensor", type(tensor).__name__)
            require(tensor.dim() == 2, name, what, "have 2 dimensions", tensor.dim())
            floats = "have dtype float32, float16 or bfloat16"
            require(tensor.dtype in FLOAT_DTYPES, name, what, floats, tensor.dtype)
        n, rank = self.b.shape
        require_layout(name, "a", self.a, (rank, self.a.shape[1]), self.a.dtype, self.a.device)
        require_layout(name, "b", self.b, (n, rank), self.b.dtype, self.a.device)
        if self.base is not None:
            self.base.validate()
            wanted, got = list(self.shape), list(self.base.shape)
            require(wanted == got, name, "base", f"have shape {wanted}", got)

    def to_dense(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """[n, k] of dtype, by default that of `b`: the product in float32, the base added, rounded once."""
        dense = self.b.float() @ self.a.float()
        if self.base is not None:
            dense += self.base.to_dense(torch.float32)
        return dense.to(self.b.dtype if dtype is None else dtype)


def _check_pack(weight: torch.Tensor, mask: torch.Tensor | None, rank: int, base: PackedWeight | None) -> None:
    def check(condition: bool, what: str, rule: str, got: object) -> None:
        if not condition:
            raise ValueError(f"LowRankWeight.pack: {what} must {rule}, got {got}")

    check(weight.dim() == 2, "weight", "have 2 dimensions", weight.dim())
    check(weight.dtype in FLOAT_DTYPES, "weight", "have dtype float32, float16 or bfloat16", weight.dtype)
    check(mask is None, "mask", "be None (prune the base)", "a mask")
    check(0 <= rank <= min(weight.shape), "rank", f"be between 0 and {min(weight.shape)}", rank)
    if base is not None:
        check(base.NAME in BASES, "base", f"be of a format of {', '.join(BASES)}", base.NAME)
        check(base.shape == tuple(weight.shape), "base", f"have shape {list(weight.shape)}", list(base.shape))
