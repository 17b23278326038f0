"""Argument checks that all ops over column-scaled, group-quantized codes share."""

import torch

from ..reference.codebooks import BITS, LEVELS
from ..reference.panels import PANEL_ROWS, num_panels
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


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of `count` packed codes."""
    return -(-count * bits // 8)


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


def require_activation_bits(op: str, activation_bits: int | None, codebook: str) -> None:
    require(activation_bits in (None, 8), op, "activation_bits", "be 8 or None", activation_bits)
    if activation_bits is not None and codebook != "uniform":
        raise ValueError(f"{op}: activation_bits must be None for codebook {codebook!r}, got {activation_bits}")


def require_row_grid_tensors(
    op: str, n: int, k: int, device: torch.device, scale: torch.Tensor, zero: torch.Tensor, column_scale: torch.Tensor,
    bits: int, group_size: int, codebook: str,
) -> None:  # fmt: skip
    """Row by row: scale bf16 [n, G], zero u8 packed and column_scale bf16 [k] of a weight [n, k] on `device`."""
    num_groups = -(-k // group_size)
    zero_bytes = packed_bytes(num_groups, bits) if codebook == "uniform" else 0
    require_tensor(scale, op, "scale", shape=(n, num_groups), dtype=torch.bfloat16, device=device)
    require_tensor(zero, op, "zero", shape=(n, zero_bytes), dtype=torch.uint8, device=device)
    require_tensor(column_scale, op, "column_scale", shape=(k,), dtype=torch.bfloat16, device=device)
