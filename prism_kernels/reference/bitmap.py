"""The bitmap layout: bit j % 8 of byte j // 8 of a row is column j; rows end in whole 64-column blocks."""

import torch
import torch.nn.functional as F

BLOCK = 64


def from_mask(mask: torch.Tensor) -> torch.Tensor:
    """bool [n, k] -> uint8 [n, 8 * ceil(k / 64)]."""
    n, k = mask.shape
    bits = F.pad(mask, (0, -k % BLOCK)).reshape(n, -(-k // BLOCK) * 8, 8).to(torch.uint8)
    return (bits << torch.arange(8, dtype=torch.uint8, device=mask.device)).sum(-1, dtype=torch.uint8)


def to_mask(bitmap: torch.Tensor, k: int) -> torch.Tensor:
    """uint8 [n, 8 * ceil(k / 64)] -> bool [n, k]."""
    bits = bitmap.unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8, device=bitmap.device)
    return (bits & 1).bool().flatten(1)[:, :k]


def block_counts(bitmap: torch.Tensor) -> torch.Tensor:
    """Survivors of each 64-column block: uint8 [n, 8 * blocks] -> int64 [n, blocks]."""
    pairs = bitmap - ((bitmap >> 1) & 0x55)
    nibbles = (pairs & 0x33) + ((pairs >> 2) & 0x33)
    n, width = bitmap.shape
    return ((nibbles + (nibbles >> 4)) & 0x0F).reshape(n, width // 8, 8).sum(-1)


def block_starts(bitmap: torch.Tensor, bits: int) -> torch.Tensor:
    """First byte of each block's codes, and the end of the last: int64 [n * blocks + 1]."""
    return F.pad(((block_counts(bitmap) * bits + 7) // 8).flatten().cumsum(0), (1, 0))


def first_bits(bitmap: torch.Tensor, bits: int) -> torch.Tensor:
    """First stream bit of each survivor's code, row-major: int64 [survivors]."""
    kept = to_mask(bitmap, bitmap.shape[1] * 8).reshape(-1, BLOCK)
    starts = block_starts(bitmap, bits)[:-1, None] * 8
    return (starts + (kept.cumsum(-1) - 1) * bits)[kept]
