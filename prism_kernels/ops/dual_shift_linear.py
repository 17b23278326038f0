"""A linear over a dual-shift weight."""

import torch

from ..reference.dual_shift_linear import dual_shift_linear as reference
from ._define import define
from ._dual_shift import require_activation_bits, require_weight
from ._linear import run_linear


def _fake(x, codes, scale, zero, column_scale, bias, n, bits, group_size, codebook, activation_bits):
    return x.new_empty(x.shape[0], n)


define(
    "dual_shift_linear(Tensor x, Tensor codes, Tensor scale, Tensor zero, Tensor column_scale, Tensor? bias, int n,"
    " int bits, int group_size, str codebook, int? activation_bits) -> Tensor",
    reference=reference,
    fake=_fake,
)


def _setup_context(ctx, inputs, output):
    x, codes, scale, zero, column_scale, _, *ctx.grid, _ = inputs
    ctx.dtype = x.dtype
    ctx.save_for_backward(codes, scale, zero, column_scale)


def _backward(ctx, grad):
    grad_x = grad_bias = None
    if ctx.needs_input_grad[0]:
        weight = torch.ops.prism.dual_shift_dequantize.default(*ctx.saved_tensors, *ctx.grid, ctx.dtype)
        grad_x = grad @ weight
    if ctx.needs_input_grad[5]:
        grad_bias = grad.sum(0)
    return grad_x, None, None, None, None, grad_bias, None, None, None, None, None


torch.library.register_autograd("prism::dual_shift_linear", _backward, setup_context=_setup_context)


def dual_shift_linear(
    x: torch.Tensor,
    codes: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor,
    column_scale: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    n: int,
    bits: int,
    group_size: int,
    codebook: str = "uniform",
    activation_bits: int | None = None,
) -> torch.Tensor:
    """x @ weight^T + bias over the weight that `dual_shift_dequantize` decodes, without materializing it.

    Accumulates in float32 and rounds once to x.dtype. With bfloat16 x, a CPU with AVX512-BF16 multiplies bfloat16
    values: x * column_scale and the levels of "nf4" and "nf3" are rounded to bfloat16, uniform codes are exact. One or
    two tokens of uniform codes in groups of at most 256 columns take 16-bit integers on a CPU with AVX-512 (up to 16
    tokens where bits is not 4) or AVX2 (bits up to 6) instead: each x * column_scale is rounded to a multiple of its
    group's largest / 32639.

    With activation_bits = 8 each token of x * column_scale is rounded to whole numbers q from -127 to 127 and one
    factor t = max|x * column_scale| / 127 (1 where that is 0), and y = t * sum (code - zero) * scale * q.

    Differentiable in x and bias; the weight is frozen. The gradient ignores the rounding of activation_bits.

    Args:
        x: [..., k], float32, float16 or bfloat16; finite.
        codes, scale, zero, column_scale, n, bits, group_size, codebook: as in `dual_shift_dequantize`.
        bias: [n] in x.dtype, or None.
        activation_bits: 8, for the uniform codebook only, or None.

    Returns:
        [..., n] in x.dtype.
    """
    op = "dual_shift_linear"
    require_weight(op, codes, scale, zero, column_scale, n, bits, group_size, codebook)
    require_activation_bits(op, activation_bits, codebook)
    weight = (codes.contiguous(), scale.contiguous(), zero.contiguous(), column_scale.contiguous())
    return run_dual_shift_linear(x, weight, bias, n, bits, group_size, codebook, activation_bits)


def run_dual_shift_linear(
    x: torch.Tensor,
    weight: tuple[torch.Tensor, ...],
    bias: torch.Tensor | None,
    n: int,
    bits: int,
    group_size: int,
    codebook: str,
    activation_bits: int | None,
) -> torch.Tensor:
    """`dual_shift_linear` of a weight (codes, scale, zero, column_scale) that is known to be sound: what `nn` calls."""
    overload = torch.ops.prism.dual_shift_linear.default
    grid = (bits, group_size, codebook, activation_bits)
    return run_linear("dual_shift_linear", overload, x, weight, bias, n, weight[3].shape[0], *grid)
