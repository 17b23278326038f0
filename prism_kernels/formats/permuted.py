"""Permuted: a packed weight whose columns stand in another order, so that an n:m pattern may choose its neighbours."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ._base import PackedWeight
from ._bitmap import shape_of
from ._grid import require, require_layout
from .bitmap import BitmapWeight
from .bitmap_dual_shift import BitmapDualShiftWeight
from .sparse24 import Sparse24Weight
from .sparse24_dual_shift import Sparse24DualShiftWeight

#: What may be permuted, by name.
BASES: dict[str, type[PackedWeight]] = {
    kind.NAME: kind for kind in (BitmapDualShiftWeight, BitmapWeight, Sparse24DualShiftWeight, Sparse24Weight)
}
_PREFIX = "base."


@dataclass(frozen=True, eq=False)
class PermutedWeight(PackedWeight):
    """The weight w with w[:, index] = base: column j of the base multiplies input index[j].

    Attributes:
        index: int32 [k], a permutation of 0 .. k - 1.
        base: a packed weight [n, k] of another format.

    Bytes: 4 k and those of the base.
    """

    NAME: ClassVar[str] = "permuted"

    index: torch.Tensor
    base: PackedWeight

    @classmethod
    def pack(
        cls,
        weight: torch.Tensor,
        mask: torch.Tensor | None = None,
        *,
        index: torch.Tensor,
        base: str = "bitmap",
        **options: Any,
    ) -> "PermutedWeight":
        """Packs the columns `index` of weight [n, k] (and of `mask`, bool [n, k], in the order of the weight).

        Args:
            index: int [k], a permutation.
            base: name of the format of the permuted columns; `options` are those of its `pack`.

        Raises:
            ValueError: an argument that does not fit.
        """
        if base not in BASES:
            raise ValueError(f"PermutedWeight.pack: base must name a format of {', '.join(BASES)}, got {base!r}")
        fits = weight.dim() == 2 and tuple(index.shape) == (weight.shape[1],)
        if not (fits and index.dtype in (torch.int32, torch.int64) and _is_permutation(index)):
            rule = "must be a permutation of the columns of a matrix in int32 or int64"
            got = f"{index.dtype} {list(index.shape)} for {list(weight.shape)}"
            raise ValueError(f"PermutedWeight.pack: index {rule}, got {got}")
        columns = weight.index_select(1, index)
        kept = None if mask is None else mask.index_select(1, index)
        return cls(index.to(torch.int32).contiguous(), BASES[base].pack(columns, kept, **options))  # type: ignore[attr-defined]

    @property
    def shape(self) -> tuple[int, int]:
        return self.base.shape

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"index": self.index} | {_PREFIX + name: tensor for name, tensor in self.base.tensors().items()}

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "base": {"format": self.base.NAME, **self.base.config()}}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> "PermutedWeight":
        given = dict(config)
        described = given.pop("base", None)
        n, k = shape_of(cls.NAME, given, ("shape",))
        inner = {name.removeprefix(_PREFIX): t for name, t in tensors.items() if name.startswith(_PREFIX)}
        own = sorted(name for name in tensors if not name.startswith(_PREFIX))
        require(own == ["index"], cls.NAME, "tensors", "be index and those of the base", sorted(tensors))
        sound = isinstance(described, dict) and described.get("format") in BASES
        require(sound, cls.NAME, "base", f"name a format of {', '.join(BASES)}", repr(described))
        assert isinstance(described, dict)
        options = {key: value for key, value in described.items() if key != "format"}
        weight = cls(tensors["index"], BASES[described["format"]].from_tensors(inner, options))
        require(weight.shape == (n, k), cls.NAME, "shape", f"be {list(weight.shape)}", [n, k])
        weight.validate()
        return weight

    def validate(self) -> None:
        self.base.validate()
        require_index(self.NAME, self.index, self.shape[1], next(iter(self.base.tensors().values())).device)

    def to_dense(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """[n, k] of dtype, by default that of the base; a pruned weight is exactly 0."""
        return self.base.to_dense(dtype).index_select(1, self.index.argsort())


def require_index(name: str, index: Any, k: int, device: torch.device) -> None:
    """Raises FormatError unless `index` is a permutation of 0 .. k - 1 in int32 [k]."""
    require(isinstance(index, torch.Tensor), name, "index", "be a tensor", type(index).__name__)
    require(index.dtype == torch.int32, name, "index", "have dtype int32", index.dtype)
    require_layout(name, "index", index, (k,), torch.int32, device)
    require(_is_permutation(index), name, "index", f"hold each of 0 to {k - 1} once", "another list")


def _is_permutation(index: torch.Tensor) -> bool:
    return torch.equal(index.sort().values, torch.arange(len(index), dtype=index.dtype, device=index.device))
