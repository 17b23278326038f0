"""A linear over a 2:4 weight in the order of sparse tensor cores."""

import torch

from ..reference.sparse24_linear import sparse24_linear as reference
from ._check import require, require_tensor
from ._define import define
from ._linear import run_linear
from ._sparse24 import VALUE_DTYPES, require_packed

define(
    "sparse24_linear(Tensor x, Tensor values, Tensor columns, Tensor? bias, int n) -> Tensor",
    reference=reference,
    fake=lambda x, values, columns, bias, n: x.new_empty(x.shape[0], n),
)


def _setup_context(ctx, inputs, output) -> None:
    x, values, columns, _, n = inputs
    ctx.save_for_backward(values, columns)
    ctx.shape = (n, x.shape[-1])


def _backward(ctx, grad):
    grad_x = grad_bias = None
    if ctx.needs_input_grad[0]:
        grad_x = grad @ torch.ops.prism.sparse24_unpack.default(*ctx.saved_tensors, *ctx.shape)
    if ctx.needs_input_grad[3]:
        grad_bias = grad.sum(0)
    return grad_x, None, None, grad_bias, None


torch.library.register_autograd("prism::sparse24_linear", _backward, setup_context=_setup_context)


def sparse24_linear(
    x: torch.Tensor, values: torch.Tensor, columns: torch.Tensor, bias: torch.Tensor | None = None, *, n: int
) -> torch.Tensor:
    """x @ weight^T + bias over the tensors of `sparse24_pack`; differentiable in x and bias, the weight is frozen.

    Args:
        x: [..., k], float16 or bfloat16; finite.
        values: [P, T, 2, 32, 8] in the dtype of x, P = ceil(n / 16), T = ceil(k / 64).
        columns: int32 [P, T, 32].
        bias: [n] in the dtype of x, or None.
        n: rows of the weight.

    Returns:
        [..., n] in the dtype of x, summed in float32 and rounded once.

    Raises:
        TypeError, ValueError: another dtype, shape or device.
    """
    name = "sparse24_linear"
    require_tensor(x, name, "x", dtype=VALUE_DTYPES)
    require(x.dim() >= 1, name, "x", "have at least 1 dimension", x.dim())
    require_packed(name, "values", values, columns, n, x.shape[-1], x.dtype, x.device)
    return run_sparse24_linear(x, (values.contiguous(), columns.contiguous()), bias, n, x.shape[-1])


def run_sparse24_linear(
    x: torch.Tensor, weight: tuple[torch.Tensor, ...], bias: torch.Tensor | None, n: int, k: int
) -> torch.Tensor:
    """`sparse24_linear` of a weight [n, k] (values, columns) that is known to be sound: what `nn` calls."""
    return run_linear("sparse24_linear", torch.ops.prism.sparse24_linear.default, x, weight, bias, n, k)
