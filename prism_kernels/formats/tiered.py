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

# Packed or checked at a time: indices and counts of bits are many times larger than the weights.
_STRIP_WEIGHTS = 2**18


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
        n, k = weight.shape
        codes = None if tiers is None else tiers.to(device=weight.device, dtype=torch.uint8)
        shape = layout.num_tiles(n), layout.num_tiles(k)
        tiles = shape[0] * shape[1]
        # Room for all, of which only what is written takes memory; pieces by strip would leave holes in the heap.
        found = torch.empty(shape, dtype=torch.uint8, device=weight.device)
        masks = torch.empty(tiles, layout.MASK_BYTES, dtype=torch.uint8, device=weight.device)
        values = weight.new_empty(tiles * layout.TILE_SIZE)
        masked = kept = 0
        step = max(1, _STRIP_WEIGHTS // (layout.TILE * max(k, 1)))
        for first in range(0, shape[0], step):
            panels, rows = slice(first, first + step), slice(first * layout.TILE, (first + step) * layout.TILE)
            strip = None if codes is None else codes[panels], None if mask is None else mask[rows]
            found[panels], bits, survivors = _pack_panels(weight[rows], *strip, top_k)
            masks[masked : masked + len(bits)], values[kept : kept + len(survivors)] = bits, survivors
            masked, kept = masked + len(bits), kept + len(survivors)
        return cls(found, masks[:masked].clone(), values[:kept].clone(), (n, k))

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
        uneven, stray = self._wrong_bits(masked)
        require(uneven == 0, name, "masks", "keep 2 of every 4 columns in tiles of tier 1", f"{uneven} other quads")
        require(stray == 0, name, "masks", f"be 0 past {n} rows and {k} columns in tiles of tier 2", f"{stray} bits")

    def _wrong_bits(self, masked: torch.Tensor) -> tuple[int, int]:
        """Quads of 2:4 tiles that do not keep 2, and bits of top-k tiles past the last row or column."""
        wrong = torch.zeros(2, dtype=torch.int64, device=self.tiers.device)
        tiles = _STRIP_WEIGHTS // layout.TILE_SIZE + 1
        parts = [tensor.split(tiles) for tensor in (self.tiers[masked], self.masks, masked.nonzero())]
        for tiers, masks, at in zip(*parts, strict=True):
            bits, last = layout.unpack_bits(masks), tiers == layout.TOP_K
            wrong[0] += (_per_quad(bits[tiers == layout.SPARSE24]) != 2).sum()
            wrong[1] += _outside(bits[last], at[last], *self.dense_shape)
        uneven, stray = wrong.tolist()
        return uneven, stray

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


def _pack_panels(
    weight: torch.Tensor, tiers: torch.Tensor | None, mask: torch.Tensor | None, top_k: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tiers, masks and values of some panels: `TieredWeight.pack` of few rows."""
    tiles = layout.to_tiles(weight)
    if tiers is None:
        kept = layout.to_tiles(weight != 0 if mask is None else mask)
        tiers = _tiers_of(kept, weight.shape)
    elif mask is None:
        kept = _select(tiles, tiers, top_k)
    else:
        kept = layout.to_tiles(mask)
        _require_pairs(kept[tiers == layout.SPARSE24])
    kept = torch.where((tiers == layout.DENSE).unsqueeze(-1), _inside(weight), kept)
    kept[tiers == layout.EMPTY] = False
    tiles = torch.where(kept, tiles, 0)
    tiers = torch.where((tiers == layout.TOP_K) & ~kept.any(-1), layout.EMPTY, tiers)
    kept[tiers == layout.SPARSE24] = _fill_quads(kept[tiers == layout.SPARSE24])
    kept[tiers == layout.DENSE] = True
    return tiers, layout.pack_bits(kept[layout.stores_mask(tiers)]), tiles[kept]


def _require_pairs(bits: torch.Tensor) -> None:
    most = int(_per_quad(bits).max()) if bits.numel() else 0
    if most > 2:
        raise ValueError(
            f"TieredWeight.pack: mask must keep at most 2 of every 4 columns in tiles of tier 1, got {most}"
        )


def _per_quad(bits: torch.Tensor) -> torch.Tensor:
    """How many of each row's every 4 columns are kept: [..., 256] in the order of bits -> [..., 4, 16]."""
    return bits.unflatten(-1, (4, 2, layout.TILE, 2)).sum((-3, -1))


def _inside(weight: torch.Tensor) -> torch.Tensor:
    return layout.to_tiles(torch.ones(weight.shape, dtype=torch.bool, device=weight.device))


def _outside(bits: torch.Tensor, tiles: torch.Tensor, n: int, k: int) -> torch.Tensor:
    """How many bits of the tiles [count, 2] (panel, tile of the panel) lie past n rows or k columns."""
    at = layout.to_tiles(torch.arange(layout.TILE_SIZE, device=bits.device).view(layout.TILE, layout.TILE)).flatten()
    rows = tiles[:, :1] * layout.TILE + at // layout.TILE
    columns = tiles[:, 1:] * layout.TILE + at % layout.TILE
    return (bits & ((rows >= n) | (columns >= k))).sum()


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
