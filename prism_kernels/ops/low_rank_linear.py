"""A linear over a weight of low rank."""

import math

import torch

from ..reference.low_rank_linear import low_rank_linear as reference
from ._check import require, require_float, require_tensor
from ._define import call, define


def _fake(x, a, b, bias):
    return x.new_empty(x.shape[0], b.shape[0])


define("low_rank_linear(Tensor x, Tensor a, Tensor b, Tensor? bias) -> Tensor", reference=reference, fake=_fake)


def _setup_context(ctx, inputs, output) -> None:
    _, a, b, _ = inputs
    ctx.save_for_backward(a, b)


def _backward(ctx, grad):
    a, b = ctx.saved_tensors
    grad_x = (grad @ b.to(grad.dtype)) @ a.to(grad.dtype) if ctx.needs_input_grad[0] else None
    return grad_x, None, None, grad.sum(0) if ctx.needs_input_grad[3] else None


torch.library.register_autograd("prism::low_rank_linear", _backward, setup_context=_setup_context)


def low_rank_linear(
    x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """x @ a^T @ b^T + bias: a linear whose weight is b @ a; differentiable in x and bias, the factors are frozen.

    Args:
        x: [..., k], float32, float16 or bfloat16.
        a: [rank, k], any of the three dtypes, whatever that of x.
        b: [n, rank], likewise.
        bias: [n] in the dtype of x, or None.

    Returns:
        [..., n] in the dtype of x; both products are summed in float32, the result is rounded once.
    """
    op = "low_rank_linear"
    require_float(x, op, "x")
    require(x.dim() >= 1, op, "x", "have at least 1 dimension", x.dim())
    require_float(a, op, "a", shape=(None, x.shape[-1]), device=x.device)
    require_float(b, op, "b", shape=(None, a.shape[0]), device=x.device)
    n = b.shape[0]
    if bias is not None:
        require_tensor(bias, op, "bias", shape=(n,), dtype=x.dtype, device=x.device)
    y = call(
        torch.ops.prism.low_rank_linear.default,
        x.reshape(math.prod(x.shape[:-1]), x.shape[-1]).contiguous(),
        a.contiguous(),
        b.contiguous(),
        None if bias is None else bias.contiguous(),
    )
    return y.reshape(*x.shape[:-1], n)
