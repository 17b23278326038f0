"""Activations as whole numbers times one factor per token (`reference/activations.py`), and rounding as a GPU lacks it
in Triton: half to even, without a library of device code that the interpreter does not have."""

import torch
import triton
import triton.language as tl

from ._launch import launch, next_power_of_2


@triton.jit
def round_half_even(value):
    """float32 to the nearest whole number, beyond 2^21 to +-2^21: adding 1.5 * 2^23 leaves no bits for a fraction."""
    held = tl.minimum(tl.maximum(value, -2097152.0), 2097152.0)
    return (held + 12582912.0) - 12582912.0


@triton.jit
def _quantize_tokens_kernel(x, column_scale, whole, token_scale, k, COLUMNS: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    largest = tl.zeros([COLUMNS], tl.float32)
    for begin in range(0, k, COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        factor = tl.load(column_scale + column, mask=column < k, other=0.0).to(tl.float32)
        value = tl.load(x + token * k + column, mask=column < k, other=0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.abs(value * factor))
    unit = tl.div_rn(tl.max(largest, axis=0), 127.0)
    unit = tl.where(unit > 0.0, unit, 1.0)
    tl.store(token_scale + token, unit)
    for begin in range(0, k, COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        factor = tl.load(column_scale + column, mask=column < k, other=0.0).to(tl.float32)
        value = tl.load(x + token * k + column, mask=column < k, other=0.0).to(tl.float32)
        steps = round_half_even(tl.div_rn(value * factor, tl.zeros([COLUMNS], tl.float32) + unit))
        steps = tl.minimum(tl.maximum(steps, -127.0), 127.0)
        tl.store(whole + token * k + column, steps.to(whole.dtype.element_ty), mask=column < k)


def quantize_tokens(x: torch.Tensor, column_scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x [m, k], column_scale bf16 [k] -> (whole numbers in x.dtype, where they are exact, [m, k]; float32 [m])."""
    m, k = x.shape
    whole, token_scale = torch.empty_like(x), torch.empty(m, dtype=torch.float32, device=x.device)
    launch(
        _quantize_tokens_kernel, (m,), x=x, column_scale=column_scale, whole=whole, token_scale=token_scale, k=k,
        COLUMNS=min(max(next_power_of_2(k), 16), 2048), num_warps=8,
    )  # fmt: skip
    return whole, token_scale
