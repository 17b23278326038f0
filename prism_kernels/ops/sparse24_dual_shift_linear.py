"""A linear over 4-bit codes behind a 2:4 mask, in the order of sparse tensor cores."""

import torch

from ..reference.sparse24_dual_shift_linear import sparse24_dual_shift_linear as reference
from ._check import require, require_tensor
from ._define import define
from ._linear import run_linear
from ._sparse24 import VALUE_DTYPES, require_codes

define(
    "sparse24_dual_shift_linear(Tensor x, Tensor codes, Tensor columns, Tensor scale, Tensor zero, Tensor column_scale,"
    " Tensor? bias, int n, int group_size) -> Tensor",
    reference=reference,
    fake=lambda x, codes, columns, scale, zero, column_scale, bias, n, group_size: x.new_empty(x.shape[0], n),
)


def _setup_context(ctx, inputs, output) -> None:
    x, codes, columns, scale, zero, column_scale, _, n, group_size = inputs
    ctx.save_for_backward(codes, columns, scale, zero, column_scale)
    ctx.grid, ctx.dtype = (n, group_size), x.dtype


def _backward(ctx, grad):
    grad_x = grad_bias = None
    if ctx.needs_input_grad[0]:
        decode = torch.ops.prism.sparse24_dual_shift_dequantize.default
        grad_x = grad @ decode(*ctx.saved_tensors, *ctx.grid, ctx.dtype)
    if ctx.needs_input_grad[6]:
        grad_bias = grad.sum(0)
    return grad_x, None, None, None, None, None, grad_bias, None, None


torch.library.register_autograd("prism::sparse24_dual_shift_linear", _backward, setup_context=_setup_context)


def sparse24_dual_shift_linear(
    x: torch.Tensor,
    codes: torch.Tensor,
    columns: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    n: int,
    group_size: int,
) -> torch.Tensor:
    """x @ weight^T + bias, weight = (q - z) * scale * column_scale where a code q is stored and 0 elsewhere.

    x * column_scale is rounded to the dtype of x; codes and scales are exact, sums those of float32, rounded once.
    Differentiable in x and bias; the weight is frozen. The gradient ignores the rounding of x * column_scale.

    Args:
        x: [..., k], float16 or bfloat16; finite.
        codes: int32 [P, T, 32, 2], columns: int32 [P, T, 32], of `sparse24_pack`; P = ceil(n / 16), T = ceil(k / 64).
        scale: bfloat16 [P, G, 16], zero: uint8 [P, G, 8], G = ceil(k / group_size), column_scale: bfloat16 [k], as in
            `dual_shift_dequantize` at 4 bits with the uniform codebook.
        bias: [n] in the dtype of x, or None.
        n: rows of the weight.
        group_size: a multiple of 32.

    Returns:
        [..., n] in the dtype of x.

    Raises:
        TypeError, ValueError: another dtype, shape or device.
    """
    name = "sparse24_dual_shift_linear"
    require_tensor(x, name, "x", dtype=VALUE_DTYPES)
    require(x.dim() >= 1, name, "x", "have at least 1 dimension", x.dim())
    k = x.shape[-1]
    require_codes(name, codes, columns, scale, zero, column_scale, n, k, group_size, x.device)
    weight = tuple(t.contiguous() for t in (codes, columns, scale, zero, column_scale))
    return run_sparse24_dual_shift_linear(x, weight, bias, n, k, group_size)


def run_sparse24_dual_shift_linear(
    x: torch.Tensor, weight: tuple[torch.Tensor, ...], bias: torch.Tensor | None, n: int, k: int, group_size: int
) -> torch.Tensor:
    """`sparse24_dual_shift_linear` of a weight [n, k] (codes, columns, scale, zero, column_scale) that is known to be
    sound: what `nn` calls."""
    overload = torch.ops.prism.sparse24_dual_shift_linear.default
    return run_linear("sparse24_dual_shift_linear", overload, x, weight, bias, n, k, group_size)
