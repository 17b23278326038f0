"""Tiered: 16x16 tiles, each dense, 2:4, top-k or empty; 10.0 bits per weight at 35 % dense, 45 % 2:4, 20 % top-10."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from .. import ops
from ..ops._check import FLOAT_DTYPES
from ..reference import tiered as layout
from ._base import PackedWeight
from ._bitmap import shape_of, take
from ._grid import require, require_layout


@dataclass(frozen=True, eq=False)
class TieredWeight(PackedWeight):
    """The kept weights of [n, k], tile by tile; lossless. `prism_kernels.reference.tiered` has the order.

    Attributes:
        tiers: u8 [ceil(n / 16), ceil(k / 16)]: 0 dense, 1 2:4 (exactly 2 of every 4 columns), 2 top-k, 3 empty.
        masks: u8 [tiles of tier 1 or 2, 32]; bit 32 * j + 2 * row + c of a tile is (row, column 2 * j + c).
        values: [kept], float32, float16 or bfloat16, in the order tile, bit; dense tiles have all 256.
        dense_shape: (n, k).

    Rows past n and columns past k are stored as 0 where a tile is dense or 2:4, and not at all where it is top-k.
    Bytes: tiles + 32 * tiles of tier 1 or 2 + kept * element size.
    """

    NAME: ClassVar[str] = "tiered"

    tiers: torch.Tensor
    masks: torch.Tensor
    values: torch.Tensor
    dense_shape: tuple[int, int]

    @classmethod
    def pack(
        cls,
        weight: torch.Tensor,
        tiers: torch.Tensor | None = None,
        *,
        mask: torch.Tensor | None = None,
        top_k: int = 10,
    ) -> "TieredWeight":
        """Packs weight [n, k] by a tier map.

        Args:
            weight: [n, k], float32, float16 or bfloat16.
            tiers: integers [ceil(n / 16), ceil(k / 16)], 0 dense, 1 2:4, 2 top-k, 3 empty. None takes the tier of each
                tile from its mask: dense where nothing is pruned, 2:4 where every quad keeps 2, top-k elsewhere.
            mask: bool [n, k], True = kept. None selects by magnitude in each tile: 2 of every 4 columns, the `top_k`
                largest of 256 (lower indices lose ties); where `tiers` is None too, the non-zeros.
            top_k: weights that a top-k tile keeps where no mask says it.

        Raises:
            ValueError: a map, mask or top_k that does not fit.
        """
        _check_pack(weight, tiers, mask, top_k)
        tiles = layout.to_tiles(weight)
        if tiers is None:
            kept = layout.to_tiles(weight != 0 if mask is None else mask)
            tiers = _tiers_of(kept, weight.shape)
        else:
            tiers = tiers.to(device=weight.device, dtype=torch.uint8)
            kept = _select(tiles, tiers, top_k) if mask is None else layout.to_tiles(mask)
        kept = torch.where((tiers == layout.DENSE).unsqueeze(-1), _inside(weight), kept)
        kept[tiers == layout.EMPTY] = False
        tiles = torch.where(kept, tiles, 0)
        tiers = torch.where((tiers == layout.TOP_K) & ~kept.any(-1), layout.EMPTY, tiers)
        kept[tiers == layout.SPARSE24] = _fill_quads(kept[tiers == layout.SPARSE24])
        kept[tiers == layout.DENSE] = True
        masks = layout.pack_bits(kept[layout.stores_mask(tiers)])
        return cls(tiers, masks, tiles[kept], (weight.shape[0], weight.shape[1]))

    @property
    def shape(self) -> tuple[int, int]:
        return self.dense_shape

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"tiers": self.tiers, "masks": self.masks, "values": self.values}

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.dense_shape)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> "TieredWeight":
        tiers, masks, values = take(cls, tensors, ("tiers", "masks", "values"))
        weight = cls(tiers, masks, values, shape_of(cls.NAME, config, ("shape",)))
        weight.validate()
        return weight

    def validate(self) -> None:
        name, (n, k) = self.NAME, self.dense_shape
        for what, tensor in self.tensors().items():
            require(isinstance(tensor, torch.Tensor), name, what, "be a tensor", type(tensor).__name__)
        device = self.tiers.device
        require_layout(name, "tiers", self.tiers, (layout.num_tiles(n), layout.num_tiles(k)), torch.uint8, device)
        largest = int(self.tiers.max()) if self.tiers.numel() else 0
        require(largest <= layout.EMPTY, name, "tiers", f"be at most {layout.EMPTY}", largest)
        masked = layout.stores_mask(self.tiers)
        shape = (int(masked.sum()), layout.MASK_BYTES)
        require_layout(name, "masks", self.masks, shape, torch.uint8, device)
        floats = "have dtype float32, float16 or bfloat16"
        require(self.values.dtype in FLOAT_DTYPES, name, "values", floats, self.values.dtype)
        kept = int(self.panel_offsets()[-1, 1])
        require_layout(name, "values", self.values, (kept,), self.values.dtype, device)
        tiers, bits = self.tiers[masked], layout.unpack_bits(self.masks)
        uneven = int((_per_quad(bits[tiers == layout.SPARSE24]) != 2).sum())
        require(uneven == 0, name, "masks", "keep 2 of every 4 columns in tiles of tier 1", f"{uneven} other quads")
        stray = _outside(bits[tiers == layout.TOP_K], masked.nonzero()[tiers == layout.TOP_K], n, k)
        require(stray == 0, name, "masks", f"be 0 past {n} rows and {k} columns in tiles of tier 2", f"{stray} bits")

    def panel_offsets(self) -> torch.Tensor:
        """Where each panel of 16 rows begins in masks and in values: int64 [ceil(n / 16) + 1, 2], derived."""
        return layout.panel_offsets(self.tiers, self.masks)

    def to_dense(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """[n, k] of dtype, by default that of `values`; a pruned weight is exactly 0."""
        dense = ops.tiered_unpack(self.tiers, self.masks, self.values, self.panel_offsets(), *self.dense_shape)
        return dense if dtype is None else dense.to(dtype)


def _check_pack(weight: torch.Tensor, tiers: torch.Tensor | None, mask: torch.Tensor | None, top_k: int) -> None:
    def check(condition: bool, what: str, rule: str, got: object) -> None:
        if not condition:
            raise ValueError(f"TieredWeight.pack: {what} must {rule}, got {got}")

    check(weight.dim() == 2, "weight", "have 2 dimensions", weight.dim())
    check(weight.dtype in FLOAT_DTYPES, "weight", "have dtype float32, float16 or bfloat16", weight.dtype)
    check(0 <= top_k <= layout.TILE_SIZE, "top_k", f"be between 0 and {layout.TILE_SIZE}", top_k)
    if mask is not None:
        check(mask.dtype == torch.bool, "mask", "have dtype bool", mask.dtype)
        check(mask.shape == weight.shape, "mask", f"have shape {list(weight.shape)}", list(mask.shape))
    if tiers is None:
        return
    shape = [layout.num_tiles(size) for size in weight.shape]
    check(list(tiers.shape) == shape, "tiers", f"have shape {shape}", list(tiers.shape))
    check(not tiers.is_floating_point(), "tiers", "have an integer dtype", tiers.dtype)
    codes = [int(tiers.min()), int(tiers.max())] if tiers.numel() else [0, 0]
    check(codes[0] >= 0 and codes[1] <= layout.EMPTY, "tiers", f"be between 0 and {layout.EMPTY}", codes)
    if mask is not None:
        tiles = layout.to_tiles(mask)[tiers.to(mask.device) == layout.SPARSE24]
        most = int(_per_quad(tiles).max()) if tiles.numel() else 0
        check(most <= 2, "mask", "keep at most 2 of every 4 columns in tiles of tier 1", most)


def _per_quad(bits: torch.Tensor) -> torch.Tensor:
    """How many of each row's every 4 columns are kept: [..., 256] in the order of bits -> [..., 4, 16]."""
    return bits.unflatten(-1, (4, 2, layout.TILE, 2)).sum((-3, -1))


def _inside(weight: torch.Tensor) -> torch.Tensor:
    return layout.to_tiles(torch.ones(weight.shape, dtype=torch.bool, device=weight.device))


def _outside(bits: torch.Tensor, tiles: torch.Tensor, n: int, k: int) -> int:
    """How many bits of the tiles [count, 2] (panel, tile of the panel) lie past n rows or k columns."""
    at = layout.to_tiles(torch.arange(layout.TILE_SIZE, device=bits.device).view(layout.TILE, layout.TILE)).flatten()
    rows = tiles[:, :1] * layout.TILE + at // layout.TILE
    columns = tiles[:, 1:] * layout.TILE + at % layout.TILE
    return int((bits & ((rows >= n) | (columns >= k))).sum())


def _tiers_of(kept: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    full = (kept | ~layout.to_tiles(torch.ones(shape, dtype=torch.bool, device=kept.device))).all(-1)
    pairs = (_per_quad(kept) == 2).flatten(2).all(-1)
    tiers = torch.where(full, layout.DENSE, torch.where(pairs, layout.SPARSE24, layout.TOP_K))
    return torch.where(kept.any(-1), tiers, layout.EMPTY).to(torch.uint8)


def _select(tiles: torch.Tensor, tiers: torch.Tensor, top_k: int) -> torch.Tensor:
    """The largest magnitudes of each 2:4 and top-k tile: bool [P, T, 256]."""
    kept = torch.zeros(tiles.shape, dtype=torch.bool, device=tiles.device)
    pairs, largest = tiers == layout.SPARSE24, tiers == layout.TOP_K
    chosen = _by_rows(ops.nm_mask(_to_rows(tiles[pairs].abs()).flatten(0, 1), 2, 4))
    kept[pairs] = chosen
    rows = _to_rows(tiles[largest].abs()).flatten(1)
    chosen = ops.topk_mask(rows, top_k, "row") & (rows != 0)
    kept[largest] = _by_rows(chosen.view(-1, layout.TILE))
    return kept


def _to_rows(tiles: torch.Tensor) -> torch.Tensor:
    """[count, 256] in the order of bits -> [count, 16, 16]."""
    return tiles.unflatten(-1, (layout.TILE // 2, layout.TILE, 2)).transpose(-3, -2).flatten(-2)


def _by_rows(rows: torch.Tensor) -> torch.Tensor:
    """The inverse, of rows [count * 16, 16]."""
    return rows.view(-1, layout.TILE, layout.TILE // 2, 2).transpose(1, 2).reshape(-1, layout.TILE_SIZE)


def _fill_quads(kept: torch.Tensor) -> torch.Tensor:
    """Bits [count, 256] that keep at most 2 of every 4 columns, filled up to exactly 2 (with weights stored as 0)."""
    return _by_rows(ops.nm_mask(_to_rows(kept.float()).flatten(0, 1), 2, 4))
