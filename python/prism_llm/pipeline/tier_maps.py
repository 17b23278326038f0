"""Tier maps: where every block of a three-tier model stands, as one safetensors file beside the weights."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from prism_kernels.formats import TieredWeight
from prism_kernels.reference.tiered import TILE, TOP_K

from ..pruning.tiers import TIER_NAMES, map_shape, shrink_tiers

FILE = "tier_maps.safetensors"
_KEY = "three-tier"


@dataclass(frozen=True)
class TierMaps:
    """The maps of one iteration.

    Attributes:
        iteration: which of a schedule this is; 0 for one shot.
        block_size, top_k: as in the recipe.
        maps: u8 [ceil(n / block_size), ceil(k / block_size)] by full name of the linear, 0 dense, 1 2:4, 2 top-k.
    """

    iteration: int
    block_size: int
    top_k: int
    maps: dict[str, Tensor] = field(repr=False)

    @classmethod
    def of_tiles(cls, iteration: int, block_size: int, top_k: int, tiles: Mapping[str, Tensor]) -> TierMaps:
        """From the tiles that `TieredWeight` stores (u8 [ceil(n / 16), ceil(k / 16)])."""
        return cls(iteration, block_size, top_k, {n: shrink_tiers(t.cpu(), block_size) for n, t in tiles.items()})

    def shares(self) -> dict[str, float]:
        """The share of all blocks in each tier."""
        total = sum(tiers.numel() for tiers in self.maps.values())
        counts = [sum(int((tiers == code).sum()) for tiers in self.maps.values()) for code in range(len(TIER_NAMES))]
        return {name: count / max(total, 1) for name, count in zip(TIER_NAMES, counts, strict=True)}

    def to_bytes(self) -> bytes:
        """The content of the file."""
        from safetensors.torch import save

        about = {"iteration": self.iteration, "block_size": self.block_size, "top_k": self.top_k}
        # One key only: safetensors writes several in random order.
        return save(dict(sorted(self.maps.items())), {_KEY: json.dumps(about)})

    @classmethod
    def load(cls, folder: str | Path) -> TierMaps:
        """Reads the maps of a checkpoint directory.

        Raises:
            FileNotFoundError: the directory has none.
            ValueError: the file is not one of this package.
        """
        from safetensors import SafetensorError, safe_open

        path = Path(folder) / FILE
        if not path.is_file():
            raise FileNotFoundError(f"TierMaps: {path} must exist, the tier maps of the iteration before; not found")
        try:
            with safe_open(path, "pt") as stored:
                about = json.loads((stored.metadata() or {})[_KEY])
                maps = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
                iteration, side, top_k = (operator.index(about[key]) for key in ("iteration", "block_size", "top_k"))
                return cls(iteration, side, top_k, maps)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ValueError(f"TierMaps: {path} must be a file of tier maps, got: {error}") from error

    def require_fit(self, modules: Mapping[str, Mapping[str, Any]]) -> None:
        """Raises ValueError unless these are maps of the tiered linears of a checkpoint (`Checkpoint.modules`)."""
        wanted = {n: map_shape(m["shape"], self.block_size) for n, m in modules.items() if m["format"] == "tiered"}
        if self.block_size < TILE or self.block_size % TILE:
            raise ValueError(f"TierMaps: block_size must be a positive multiple of {TILE}, got {self.block_size}")
        for name in sorted(wanted.keys() | self.maps.keys()):
            held = self.maps.get(name)
            if name not in wanted or held is None:
                what = "no map of it" if held is None else "a map of it, but no such tiered linear"
                raise ValueError(f"TierMaps: {name} must be a tiered linear with a map, got {what}: a foreign map")
            if tuple(held.shape) != wanted[name] or held.is_floating_point():
                got = f"{held.dtype} {list(held.shape)}"
                raise ValueError(f"TierMaps: {name} must have a map of shape {list(wanted[name])}, got {got}")
            if held.numel() and int(held.max()) > TOP_K:
                raise ValueError(f"TierMaps: {name} must hold tiers from 0 to {TOP_K}, got {int(held.max())}")


def tile_maps(modules: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tiles of the tiered linears among `modules` (packed linears by name)."""
    return {n: m.tiers.detach().cpu().clone() for n, m in modules.items() if m.FORMAT is TieredWeight}
