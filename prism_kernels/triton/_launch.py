"""How every kernel is launched: on the device of its tensors, with explicit options, and never with an empty grid."""

import functools
from typing import Any

import torch

#: Multiprocessors assumed where there is no GPU to ask (interpreter, compilation ahead of time): those of an H100.
_DEFAULT_MULTIPROCESSORS = 132


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    *,
    num_warps: int = 4,
    num_stages: int = 2,
    contract: bool = False,
    **arguments: Any,
) -> None:
    """Runs `kernel` on `grid` with `arguments` by name; contract = multiplication and addition may be fused.

    Codes and masks must equal the reference bit for bit, so contraction is asked for, not the default.
    """
    if 0 not in grid:
        options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": contract}
        _execute(kernel, grid, arguments, options)


def _execute(kernel: Any, grid: tuple[int, ...], arguments: dict[str, Any], options: dict[str, Any]) -> None:
    """Tests replace this to see, and compile ahead of time, what would be launched."""
    first = next(value for value in arguments.values() if isinstance(value, torch.Tensor))
    with torch.cuda.device_of(first):
        kernel[grid](**arguments, **options)


def multiprocessors(device: torch.device) -> int:
    return _count(device.index) if device.type == "cuda" else _DEFAULT_MULTIPROCESSORS


@functools.cache
def _count(index: int | None) -> int:
    return torch.cuda.get_device_properties(index).multi_processor_count


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


def next_power_of_2(value: int) -> int:
    return 1 << max(value - 1, 0).bit_length()
