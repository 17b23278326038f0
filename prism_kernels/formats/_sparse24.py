"""The 2:4 rule: of every 4 consecutive columns of a row exactly 2 are stored, of a last quad cut short at most 2."""

import torch
import torch.nn.functional as F

from ._grid import require

QUAD = 4
KEPT = 2


def _quads(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """bool [n, k] -> its quads [n, ceil(k / 4), 4], and how many each must keep, [ceil(k / 4)]."""
    n, k = mask.shape
    count = -(-k // QUAD)
    width = k - QUAD * torch.arange(count, device=mask.device)
    return F.pad(mask, (0, -k % QUAD)).reshape(n, count, QUAD), width.clamp(max=KEPT)


def _require(holds: torch.Tensor, kept: torch.Tensor, name: str, what: str, rule: str) -> None:
    if not bool(holds.all()):
        row, quad = (int(i) for i in (~holds).nonzero()[0])
        require(False, name, what, rule, f"{int(kept[row, quad])} in row {row} from column {QUAD * quad} on")


def fill_quads(name: str, mask: torch.Tensor) -> torch.Tensor:
    """The mask [n, k] with the first pruned columns of each quad added until 2 are stored; FormatError names a quad
    that keeps more."""
    quads, wanted = _quads(mask)
    kept = quads.sum(-1)
    _require(kept <= wanted, kept, name, "mask", "keep at most 2 of 4 columns")
    free = _quads(torch.ones_like(mask))[0] & ~quads
    filled = quads | (free & (free.cumsum(-1) <= (wanted - kept).unsqueeze(-1)))
    return filled.flatten(1)[:, : mask.shape[1]].contiguous()


def require_quads(name: str, mask: torch.Tensor) -> None:
    """Every quad of the mask [n, k] of stored weights has its 2."""
    quads, wanted = _quads(mask)
    kept = quads.sum(-1)
    _require(kept == wanted, kept, name, "bitmap", "store 2 of 4 columns")
