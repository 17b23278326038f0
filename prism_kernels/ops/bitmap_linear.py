"""A linear over a bitmap weight."""

import math

import torch

from ..reference.bitmap_linear import bitmap_linear as reference
from ._bitmap import require_activations, require_bias, require_bitmap
from ._check import require_float
from ._define import define


def _fake(x, bitmap, values, row_offsets, bias):
    return x.new_empty(x.shape[0], bitmap.shape[0])


define(
    "bitmap_linear(Tensor x, Tensor bitmap, Tensor values, Tensor row_offsets, Tensor? bias) -> Tensor",
    reference=reference,
    fake=_fake,
)


def _setup_context(ctx, inputs, output) -> None:
    x, bitmap, values, row_offsets, _ = inputs
    ctx.save_for_backward(bitmap, values, row_offsets)
    ctx.k = x.shape[-1]


def _backward(ctx, grad):
    grad_x = grad_bias = None
    if ctx.needs_input_grad[0]:
        weight = torch.ops.prism.bitmap_unpack.default(*ctx.saved_tensors, ctx.k)
        grad_x = grad @ weight.to(grad.dtype)
    if ctx.needs_input_grad[4]:
        grad_bias = grad.sum(0)
    return grad_x, None, None, None, grad_bias


torch.library.register_autograd("prism::bitmap_linear", _backward, setup_context=_setup_context)


def bitmap_linear(
    x: torch.Tensor,
    bitmap: torch.Tensor,
    values: torch.Tensor,
    row_offsets: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """x @ weight^T + bias over the tensors of `bitmap_pack`; differentiable in x and bias, the weight is frozen.

    Args:
        x: [..., k], float32, float16 or bfloat16.
        bitmap: uint8 [n, 8 * ceil(k / 64)].
        values: [kept], any of the three dtypes, whatever that of x.
        row_offsets: int32 [n + 1], from `bitmap_pack` or `bitmap_row_offsets`.
        bias: [n] in the dtype of x, or None.

    Returns:
        [..., n] in the dtype of x, summed in float32 and rounded once.
    """
    require_activations("bitmap_linear", x)
    n = require_bitmap("bitmap_linear", bitmap, row_offsets, x.shape[-1], x.device)
    require_float(values, "bitmap_linear", "values", shape=(None,), device=x.device)
    require_bias("bitmap_linear", bias, n, x)
    y = torch.ops.prism.bitmap_linear.default(
        x.reshape(math.prod(x.shape[:-1]), x.shape[-1]).contiguous(),
        bitmap.contiguous(),
        values.contiguous(),
        row_offsets.contiguous(),
        None if bias is None else bias.contiguous(),
    )
    return y.reshape(*x.shape[:-1], n)
