"""A linear over a bitmap weight with dual-shift codes."""

import math

import torch

from ..reference.bitmap_dual_shift_linear import bitmap_dual_shift_linear as reference
from ._bitmap import require_activations, require_bias, require_bitmap_dual_shift
from ._check import require_tensor
from ._define import define


def _fake(x, bitmap, codes, row_offsets, scale, zero, column_scale, bias, bits, group_size, codebook):
    return x.new_empty(x.shape[0], bitmap.shape[0])


define(
    "bitmap_dual_shift_linear(Tensor x, Tensor bitmap, Tensor codes, Tensor row_offsets, Tensor scale, Tensor zero, "
    "Tensor column_scale, Tensor? bias, int bits, int group_size, str codebook) -> Tensor",
    reference=reference,
    fake=_fake,
)


def _setup_context(ctx, inputs, output) -> None:
    _, *weight, _, bits, group_size, codebook = inputs
    ctx.save_for_backward(*weight)
    ctx.grid = (bits, group_size, codebook)


def _backward(ctx, grad):
    grad_x = grad_bias = None
    if ctx.needs_input_grad[0]:
        decode = torch.ops.prism.bitmap_dual_shift_dequantize.default
        grad_x = grad @ decode(*ctx.saved_tensors, *ctx.grid, grad.dtype)
    if ctx.needs_input_grad[7]:
        grad_bias = grad.sum(0)
    return grad_x, *(None,) * 6, grad_bias, None, None, None


torch.library.register_autograd("prism::bitmap_dual_shift_linear", _backward, setup_context=_setup_context)


def bitmap_dual_shift_linear(
    x: torch.Tensor,
    bitmap: torch.Tensor,
    codes: torch.Tensor,
    row_offsets: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    bits: int,
    group_size: int,
    codebook: str = "uniform",
) -> torch.Tensor:
    """x @ weight^T + bias over the weight that `bitmap_dual_shift_dequantize` decodes; differentiable in x and bias.

    Args:
        x: [..., k], float32, float16 or bfloat16.
        bitmap, codes, row_offsets, scale, zero, column_scale, bits, group_size, codebook: as for
            `bitmap_dual_shift_dequantize`.
        bias: [n] in the dtype of x, or None.

    Returns:
        [..., n] in the dtype of x, summed in float32 and rounded once.
    """
    op = "bitmap_dual_shift_linear"
    require_activations(op, x)
    tensors = (bitmap, codes, row_offsets, scale, zero, column_scale)
    n, k = require_bitmap_dual_shift(op, *tensors, bits=bits, group_size=group_size, codebook=codebook)
    require_tensor(x, op, "x", shape=(*x.shape[:-1], k), device=bitmap.device)
    require_bias(op, bias, n, x)
    y = torch.ops.prism.bitmap_dual_shift_linear.default(
        x.reshape(math.prod(x.shape[:-1]), x.shape[-1]).contiguous(),
        *(t.contiguous() for t in tensors),
        None if bias is None else bias.contiguous(),
        bits,
        group_size,
        codebook,
    )
    return y.reshape(*x.shape[:-1], n)
