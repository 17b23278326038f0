"""Argument checks that all ops over column-scaled, group-quantized codes share."""

import torch

from ..reference.codebooks import BITS, LEVELS
from ..reference.panels import BLOCK_COLUMNS, PANEL_ROWS, QUAD_COLUMNS, num_panels
from ._check import require, require_tensor


def require_bits(op: str, bits: int) -> None:
    require(bits in BITS, op, "bits", f"be one of {', '.join(map(str, BITS))}", bits)


def require_grid(op: str, bits: int, group_size: int, codebook: str) -> None:
    """bits, group_size and codebook fit together."""
    require_bits(op, bits)
    require(group_size >= 1, op, "group_size", "be at least 1", group_size)
    require(codebook in LEVELS, op, "codebook", f"be one of {', '.join(LEVELS)}", repr(codebook))
    if codebook != "uniform":
        count = len(LEVELS[codebook])
        require(1 << bits == count, op, "bits", f"be {count.bit_length() - 1} for codebook {codebook!r}", bits)


def packed_shape(n: int, k: int, bits: int) -> tuple[int, int, int, int]:
    """Shape of the packed codes of a weight [n, k]."""
    return num_panels(n), -(-k // BLOCK_COLUMNS), bits, PANEL_ROWS * QUAD_COLUMNS


def require_grid_tensors(
    op: str, n: int, k: int, device: torch.device, scale: torch.Tensor, zero: torch.Tensor, column_scale: torch.Tensor,
    bits: int, group_size: int, codebook: str,
) -> None:  # fmt: skip
    """scale bf16 [P, G, 16], zero u8 [P, G, 8 or 16, or 0] and column_scale bf16 [k] of a weight [n, k] on `device`."""
    panels, num_groups = num_panels(n), -(-k // group_size)
    zero_bytes = 0 if codebook != "uniform" else 8 if bits <= 4 else 16
    require_tensor(scale, op, "scale", shape=(panels, num_groups, PANEL_ROWS), dtype=torch.bfloat16, device=device)
    require_tensor(zero, op, "zero", shape=(panels, num_groups, zero_bytes), dtype=torch.uint8, device=device)
    require_tensor(column_scale, op, "column_scale", shape=(k,), dtype=torch.bfloat16, device=device)


def require_activation_bits(op: str, activation_bits: int | None, codebook: str | None) -> None:
    """8 or None; whole numbers need codes that are whole numbers."""
    require(activation_bits in (None, 8), op, "activation_bits", "be 8 or None", activation_bits)
    sound = activation_bits is None or codebook == "uniform"
    require(sound, op, "activation_bits", "be None unless the codebook is uniform", activation_bits)


def require_weight(
    op: str, codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, column_scale: torch.Tensor,
    n: int, bits: int, group_size: int, codebook: str,
) -> None:  # fmt: skip
    """Everything about the arguments of one dual-shift weight [n, k], k being the length of column_scale."""
    require_grid(op, bits, group_size, codebook)
    require(n >= 0, op, "n", "be at least 0", n)
    require_tensor(column_scale, op, "column_scale", shape=(None,), dtype=torch.bfloat16)
    k, device = column_scale.shape[0], column_scale.device
    require_tensor(codes, op, "codes", shape=packed_shape(n, k, bits), dtype=torch.uint8, device=device)
    require_grid_tensors(op, n, k, device, scale, zero, column_scale, bits, group_size, codebook)
