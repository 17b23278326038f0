"""A linear over a dual-shift weight."""

import math

import torch

from ..reference.dual_shift_linear import dual_shift_linear as reference
from ._check import require, require_float, require_tensor
from ._define import define
from ._dual_shift import packed_bytes, require_grid, require_row_grid_tensors


def _fake(x, codes, scale, zero, column_scale, bias, bits, group_size, codebook):
    return x.new_empty(x.shape[0], codes.shape[0])


define(
    "dual_shift_linear(Tensor x, Tensor codes, Tensor scale, Tensor zero, Tensor column_scale, Tensor? bias, int bits,"
    " int group_size, str codebook) -> Tensor",
    reference=reference,
    fake=_fake,
)


def _setup_context(ctx, inputs, output):
    x, codes, scale, zero, column_scale, _, *ctx.grid = inputs
    ctx.dtype = x.dtype
    ctx.save_for_backward(codes, scale, zero, column_scale)


def _backward(ctx, grad):
    grad_x = grad_bias = None
    if ctx.needs_input_grad[0]:
        weight = torch.ops.prism.dual_shift_dequantize.default(*ctx.saved_tensors, *ctx.grid, ctx.dtype)
        grad_x = grad @ weight
    if ctx.needs_input_grad[5]:
        grad_bias = grad.sum(0)
    return grad_x, None, None, None, None, grad_bias, None, None, None


torch.library.register_autograd("prism::dual_shift_linear", _backward, setup_context=_setup_context)


def dual_shift_linear(
    x: torch.Tensor,
    codes: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    bits: int,
    group_size: int,
    codebook: str = "uniform",
) -> torch.Tensor:
    """x @ weight^T + bias over the weight that `dual_shift_dequantize` decodes, without materializing it.

    Accumulates in float32 and rounds once to x.dtype. With bfloat16 x, a CPU with AVX512-BF16 multiplies bfloat16
    values: x * column_scale and the levels of "nf4" and "nf3" are rounded to bfloat16, uniform codes are exact.
    Differentiable in x and bias; the weight is frozen.

    Args:
        x: [..., k], float32, float16 or bfloat16; finite.
        codes, scale, zero, column_scale, bits, group_size, codebook: as in `dual_shift_dequantize`.
        bias: [n] in x.dtype, or None.

    Returns:
        [..., n] in x.dtype.
    """
    op = "dual_shift_linear"
    require_grid(op, bits, group_size, codebook)
    require_float(x, op, "x")
    require(x.dim() >= 1, op, "x", "have at least 1 dimension", x.dim())
    k = x.shape[-1]
    require_tensor(codes, op, "codes", shape=(None, packed_bytes(k, bits)), dtype=torch.uint8, device=x.device)
    n = codes.shape[0]
    require_row_grid_tensors(op, n, k, x.device, scale, zero, column_scale, bits, group_size, codebook)
    if bias is not None:
        require_tensor(bias, op, "bias", shape=(n,), dtype=x.dtype, device=x.device)
    y = torch.ops.prism.dual_shift_linear.default(
        x.reshape(math.prod(x.shape[:-1]), k).contiguous(),
        codes.contiguous(),
        scale.contiguous(),
        zero.contiguous(),
        column_scale.contiguous(),
        None if bias is None else bias.contiguous(),
        bits,
        group_size,
        codebook,
    )
    return y.reshape(*x.shape[:-1], n)
