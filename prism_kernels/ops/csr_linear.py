"""A linear over a CSR weight."""

import math

import torch

from ..reference.csr_linear import csr_linear as reference
from ._check import require, require_float, require_tensor
from ._csr import require_csr
from ._define import call, define


def _fake(x, values, columns, row_offsets, bias):
    return x.new_empty(x.shape[0], row_offsets.shape[0] - 1)


define(
    "csr_linear(Tensor x, Tensor values, Tensor columns, Tensor row_offsets, Tensor? bias) -> Tensor",
    reference=reference,
    fake=_fake,
)


def _setup_context(ctx, inputs, output) -> None:
    x, *packed, _ = inputs
    ctx.save_for_backward(*packed)
    ctx.k = x.shape[-1]


def _backward(ctx, grad):
    grad_x = grad_bias = None
    if ctx.needs_input_grad[0]:
        weight = torch.ops.prism.csr_unpack.default(*ctx.saved_tensors, ctx.k)
        grad_x = grad @ weight.to(grad.dtype)
    if ctx.needs_input_grad[4]:
        grad_bias = grad.sum(0)
    return grad_x, None, None, None, grad_bias


torch.library.register_autograd("prism::csr_linear", _backward, setup_context=_setup_context)


def csr_linear(
    x: torch.Tensor,
    values: torch.Tensor,
    columns: torch.Tensor,
    row_offsets: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """x @ weight^T + bias over a CSR weight; differentiable in x and bias, the weight is frozen.

    Args:
        x: [..., k], float32, float16 or bfloat16, finite: tiles on tensor cores multiply pruned weights as zeros.
        values: [kept], any of the three dtypes, whatever that of x.
        columns: [kept], int32, or int16 with the bits of an unsigned number; below k, rising in each row.
        row_offsets: int32 or int64 [n + 1]: where each row begins in values and columns.
        bias: [n] in the dtype of x, or None.

    Returns:
        [..., n] in the dtype of x, summed in float32 and rounded once.
    """
    op = "csr_linear"
    require_float(x, op, "x")
    require(x.dim() >= 1, op, "x", "have at least 1 dimension", x.dim())
    n = require_csr(op, values, columns, row_offsets, x.shape[-1], x.device)
    if bias is not None:
        require_tensor(bias, op, "bias", shape=(n,), dtype=x.dtype, device=x.device)
    y = call(
        torch.ops.prism.csr_linear.default,
        x.reshape(math.prod(x.shape[:-1]), x.shape[-1]).contiguous(),
        values.contiguous(),
        columns.contiguous(),
        row_offsets.contiguous(),
        None if bias is None else bias.contiguous(),
    )
    return y.reshape(*x.shape[:-1], n)
