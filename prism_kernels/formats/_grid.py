"""Rules that the quantized formats share: the grid's numbers, its tensors, and unused bits."""

from typing import Any

import torch

from ..reference.codebooks import BITS, LEVELS
from ..reference.panels import PANEL_ROWS, num_panels, pack_zero, rows_to_panels
from ._base import FormatError


def require(condition: bool, name: str, tensor: str, rule: str, got: object) -> None:
    """Raises FormatError `<format>: <tensor> must <rule>, got <value>` unless condition holds."""
    if not condition:
        raise FormatError(f"{name}: {tensor} must {rule}, got {got}")


def require_names(name: str, tensors: dict[str, torch.Tensor], dims: dict[str, int], config: dict, keys: set) -> None:
    """Exactly the named tensors, of the named numbers of dimensions, and exactly the named config keys."""
    require(set(tensors) == set(dims), name, "tensors", f"be {', '.join(dims)}", ", ".join(sorted(tensors)))
    require(set(config) == keys, name, "config", f"have {', '.join(sorted(keys))}", ", ".join(sorted(config)))
    for what, tensor in tensors.items():
        require(isinstance(tensor, torch.Tensor), name, what, "be a tensor", type(tensor).__name__)
        require(tensor.dim() == dims[what], name, what, f"have {dims[what]} dimensions", tensor.dim())


def require_shape(name: str, shape: Any) -> tuple[int, int]:
    """(n, k) of the config's `shape`."""
    sizes = isinstance(shape, (list, tuple)) and len(shape) == 2 and all(type(s) is int and s >= 0 for s in shape)
    require(sizes, name, "shape", "be two sizes [n, k]", repr(shape))
    return int(shape[0]), int(shape[1])


def require_layout(
    name: str, what: str, tensor: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:
    """Dtype, shape, device and contiguity of one tensor."""
    require(tensor.dtype == dtype, name, what, f"have dtype {str(dtype).removeprefix('torch.')}", tensor.dtype)
    require(tuple(tensor.shape) == shape, name, what, f"have shape {list(shape)}", list(tensor.shape))
    require(tensor.device == device, name, what, f"be on {device}", tensor.device)
    require(tensor.is_contiguous(), name, what, "be contiguous", f"strides {tensor.stride()}")


def require_numbers(name: str, bits: Any, group_size: Any, codebook: Any) -> None:
    """bits, group_size and codebook are of the right type and fit together."""
    require(type(bits) is int and bits in BITS, name, "bits", f"be one of {', '.join(map(str, BITS))}", repr(bits))
    require(type(group_size) is int and group_size >= 1, name, "group_size", "be an integer >= 1", repr(group_size))
    require(
        isinstance(codebook, str) and codebook in LEVELS,
        name,
        "codebook",
        f"be one of {', '.join(LEVELS)}",
        repr(codebook),
    )
    if codebook != "uniform":
        wanted = len(LEVELS[codebook]).bit_length() - 1
        require(bits == wanted, name, "bits", f"be {wanted} for codebook {codebook!r}", bits)


def resolve_column_scale(
    weight: torch.Tensor, mask: torch.Tensor | None, column_scale: torch.Tensor | str, group_size: int
) -> torch.Tensor:
    """bf16 [k]: the tensor itself, or what the named method of `ops.column_scale` computes."""
    if not isinstance(column_scale, str):
        return column_scale
    from ..ops.sinkhorn import column_scale as compute

    return compute(weight, mask, method=column_scale, group_size=group_size)


def pack_grid(
    name: str, scale: torch.Tensor, zero: torch.Tensor, bits: int, codebook: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """scale bf16 [n, G] and zero u8 [n, G] ([n, 0] for nf4, nf3), as `ops.dual_shift_quantize` returns them, to their
    panels: scale [P, G, 16] and zero [P, G, 8] up to 4 bits, [P, G, 16] beyond, [P, G, 0] for nf4 and nf3."""
    panels = rows_to_panels(scale)
    if codebook != "uniform":
        return panels, zero.new_empty(*panels.shape[:2], 0)
    if zero.numel():
        require(int(zero.max()) < 1 << bits, name, "zero", f"be below {1 << bits}", int(zero.max()))
    return panels, pack_zero(zero, bits)


def require_zero_rows(name: str, what: str, panels: torch.Tensor, n: int) -> None:
    """Rows past n of [P, ..., 16] are 0."""
    if n % PANEL_ROWS and panels.numel():
        stray = int(panels[-1, ..., n % PANEL_ROWS :].count_nonzero())
        require(stray == 0, name, what, f"be 0 in the rows past {n}", f"{stray} other values")


def require_grid(
    name: str, n: int, k: int, device: torch.device, scale: torch.Tensor, zero: torch.Tensor,
    column_scale: torch.Tensor, bits: int, group_size: int, codebook: str,
) -> None:  # fmt: skip
    """scale bf16 [P, G, 16] finite and > 0 (>= 0 for nf4, nf3), zero u8 as `pack_grid` packs it and below 2**bits, both
    0 in the rows past n; column_scale bf16 [k] finite and > 0."""
    panels, num_groups, uniform = num_panels(n), -(-k // group_size), codebook == "uniform"
    zero_bytes = (8 if bits <= 4 else 16) if uniform else 0
    require_layout(name, "scale", scale, (panels, num_groups, PANEL_ROWS), torch.bfloat16, device)
    require_layout(name, "zero", zero, (panels, num_groups, zero_bytes), torch.uint8, device)
    require_layout(name, "column_scale", column_scale, (k,), torch.bfloat16, device)
    require_zero_rows(name, "scale", scale, n)
    if uniform and zero.numel():
        rows = torch.cat([zero & 15, zero >> 4], dim=-1) if bits <= 4 else zero
        require_zero_rows(name, "zero", rows, n)
        require(int(rows.max()) < 1 << bits, name, "zero", f"be below {1 << bits}", int(rows.max()))
    row = torch.arange(PANEL_ROWS * panels, device=device).view(panels, 1, PANEL_ROWS)
    for what, values, positive in (("scale", scale, uniform), ("column_scale", column_scale, True)):
        good = values.isfinite() & (values > 0 if positive else values >= 0)
        if what == "scale":
            good |= row >= n
        if not bool(good.all()):
            bad = values[~good].flatten()[0].item()
            require(False, name, what, f"be finite and {'>' if positive else '>='} 0", bad)
