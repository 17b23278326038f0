"""A linear over a bitmap weight."""

import torch

from ..reference.bitmap_linear import bitmap_linear as reference
from ._bitmap import require_bitmap
from ._check import require, require_float
from ._define import define
from ._linear import run_linear

define(
    "bitmap_linear(Tensor x, Tensor bitmap, Tensor values, Tensor panel_offsets, Tensor? bias, int n) -> Tensor",
    reference=reference,
    fake=lambda x, bitmap, values, panel_offsets, bias, n: x.new_empty(x.shape[0], n),
)


def _setup_context(ctx, inputs, output) -> None:
    x, bitmap, values, panel_offsets, _, n = inputs
    ctx.save_for_backward(bitmap, values, panel_offsets)
    ctx.shape = (n, x.shape[-1])


def _backward(ctx, grad):
    grad_x = grad_bias = None
    if ctx.needs_input_grad[0]:
        weight = torch.ops.prism.bitmap_unpack.default(*ctx.saved_tensors, *ctx.shape)
        grad_x = grad @ weight.to(grad.dtype)
    if ctx.needs_input_grad[4]:
        grad_bias = grad.sum(0)
    return grad_x, None, None, None, grad_bias, None


torch.library.register_autograd("prism::bitmap_linear", _backward, setup_context=_setup_context)


def bitmap_linear(
    x: torch.Tensor,
    bitmap: torch.Tensor,
    values: torch.Tensor,
    panel_offsets: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    n: int,
) -> torch.Tensor:
    """x @ weight^T + bias over the tensors of `bitmap_pack`; differentiable in x and bias, the weight is frozen.

    Args:
        x: [..., k], float32, float16 or bfloat16; finite.
        bitmap: uint8 [P, ceil(k / 2), 4], P = ceil(n / 16).
        values: [kept], any of the three dtypes, whatever that of x.
        panel_offsets: int64 [P + 1], from `bitmap_pack` or `bitmap_panel_offsets`.
        bias: [n] in the dtype of x, or None.
        n: rows of the weight.

    Returns:
        [..., n] in the dtype of x, summed in float32 and rounded once.
    """
    require_float(x, "bitmap_linear", "x")
    require(x.dim() >= 1, "bitmap_linear", "x", "have at least 1 dimension", x.dim())
    k = x.shape[-1]
    require_bitmap("bitmap_linear", bitmap, panel_offsets, n, k, 2, x.device)
    require_float(values, "bitmap_linear", "values", shape=(None,), device=x.device)
    weight = (bitmap.contiguous(), values.contiguous(), panel_offsets.contiguous())
    return run_bitmap_linear(x, weight, bias, n, k)


def run_bitmap_linear(
    x: torch.Tensor,
    weight: tuple[torch.Tensor, ...],
    bias: torch.Tensor | None,
    n: int,
    k: int,
) -> torch.Tensor:
    """`bitmap_linear` of a weight [n, k] (bitmap, values, panel_offsets) that is known to be sound: what `nn` calls."""
    overload = torch.ops.prism.bitmap_linear.default
    return run_linear("bitmap_linear", overload, x, weight, bias, n, k)
