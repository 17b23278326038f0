"""Compressed checkpoints as dense models with masks, and back: what training and further pruning work on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prism_kernels.formats import (
    BitmapWeight,
    CsrWeight,
    PackedWeight,
    PermutedWeight,
    Sparse24Weight,
    TieredWeight,
)
from prism_kernels.nn import BitmapLinear, CsrLinear, PackedLinear, PermutedLinear, Sparse24Linear, TieredLinear
from prism_kernels.swap import replace_module

#: The formats that store kept weights as they are, so that nothing is lost on the way to dense and back; their columns
#: may be permuted.
LOSSLESS: dict[str, type[PackedLinear]] = {
    module.FORMAT.NAME: module for module in (BitmapLinear, CsrLinear, Sparse24Linear, TieredLinear)
}


@dataclass(frozen=True)
class Sparse:
    """What makes a packed linear of a dense one again.

    Attributes:
        format: name of the storage format, of the permuted columns if there are. dtype: of the stored weights.
        mask: bool [n, k], True = kept: the non-zeros of the weight when it was expanded.
        tiers: the 16x16 tiles of a tiered weight, else None.
        index: the order of the columns of a permuted weight, else None.
    """

    format: str
    dtype: torch.dtype
    mask: Tensor
    tiers: Tensor | None = None
    index: Tensor | None = None

    def pack(self, weight: Tensor) -> PackedWeight:
        """Packs [n, k] of any float dtype; what the mask prunes is not read."""
        values = weight.detach().to(self.dtype)
        if not bool(values[self.mask].isfinite().all()):
            raise ValueError(f"pack: weight must be finite in {self.dtype}, got infinity or NaN")
        mask = self.mask.to(values.device)
        if self.index is not None:
            return PermutedWeight.pack(values, mask, index=self.index.to(values.device), base=self.format)
        if self.tiers is not None:
            return TieredWeight.pack(values, self.tiers, mask=mask)
        formats: dict[str, type[BitmapWeight | CsrWeight | Sparse24Weight]] = {
            "bitmap": BitmapWeight,
            "csr": CsrWeight,
            "sparse24": Sparse24Weight,
        }
        return formats[self.format].pack(values, mask)


def stored_format(entry: Mapping[str, Any]) -> str:
    """The format in which a checkpoint stores a linear (an entry of `Checkpoint.modules`), under any permutation."""
    base = entry.get("base")
    permuted = entry["format"] == PermutedWeight.NAME and isinstance(base, Mapping) and "format" in base
    return base["format"] if permuted and base is not None else entry["format"]


def require_lossless(function: str, formats: Mapping[str, str]) -> None:
    """Raises ValueError unless every format (by name of the linear) stores its kept weights as they are."""
    if not formats:
        raise ValueError(f"{function}: model must hold compressed linears, got none")
    for name, kind in formats.items():
        if kind not in LOSSLESS:
            raise ValueError(
                f"{function}: model must hold lossless sparse linears only ({', '.join(sorted(LOSSLESS))}), got {kind} "
                f"in {name}: codes or factors cannot be trained; train before quantizing"
            )


@torch.no_grad()
def expand_(model: nn.Module, dtype: torch.dtype | None = None) -> dict[str, Sparse]:
    """Replaces the packed linears of `model` in place by dense ones.

    Args:
        model: with lossless sparse linears only.
        dtype: of the dense weights; None = as stored.

    Returns:
        By full name what `repack_` needs.

    Raises:
        ValueError: a linear is quantized or factored, or none is packed.
    """
    packed: dict[str, PackedLinear] = {}
    for name, module in model.named_modules():
        if isinstance(module, PackedLinear) and not isinstance(packed.get(name.rpartition(".")[0]), PermutedLinear):
            packed[name] = module
    formats = {n: stored_format({"format": m.FORMAT.NAME, **m.packed_weight().config()}) for n, m in packed.items()}
    require_lossless("expand_", formats)
    found: dict[str, Sparse] = {}
    for name, module in packed.items():
        weight = module.packed_weight()
        dense = weight.to_dense()
        tiers = weight.tiers if isinstance(weight, TieredWeight) else None
        index = weight.index if isinstance(weight, PermutedWeight) else None
        found[name] = Sparse(formats[name], dense.dtype, dense != 0, tiers, index)
        with torch.device("meta"):
            linear = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
        linear.weight = nn.Parameter(dense if dtype is None else dense.to(dtype))
        if module.bias is not None:
            linear.bias = nn.Parameter(module.bias.detach().clone())
        replace_module(model, name, linear.train(module.training))
    return found


@torch.no_grad()
def repack_(model: nn.Module, sparse: Mapping[str, Sparse]) -> None:
    """The inverse of `expand_`, with the weights as they are now."""
    for name, how in sparse.items():
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear), f"{name} was expanded to a linear"
        kind = LOSSLESS[how.format] if how.index is None else PermutedLinear
        module = kind(how.pack(linear.weight), linear.bias)
        replace_module(model, name, module.train(linear.training))
