"""A linear over a bitmap weight with dual-shift codes."""

import torch

from ..reference.bitmap_dual_shift_linear import bitmap_dual_shift_linear as reference
from ._bitmap import require_bitmap_dual_shift
from ._define import define
from ._dual_shift import require_activation_bits
from ._linear import run_linear


def _fake(x, bitmap, codes, panel_offsets, scale, zero, column_scale, bias, n, *grid):
    return x.new_empty(x.shape[0], n)


define(
    "bitmap_dual_shift_linear(Tensor x, Tensor bitmap, Tensor codes, Tensor panel_offsets, Tensor scale, Tensor zero, "
    "Tensor column_scale, Tensor? bias, int n, int bits, int group_size, str codebook, int? activation_bits) -> Tensor",
    reference=reference,
    fake=_fake,
)


def _setup_context(ctx, inputs, output) -> None:
    _, *weight, _, n, bits, group_size, codebook, _ = inputs
    ctx.save_for_backward(*weight)
    ctx.grid = (n, bits, group_size, codebook)


def _backward(ctx, grad):
    # Rounding of activations counts as the identity: its own derivative is 0 almost everywhere.
    grad_x = grad_bias = None
    if ctx.needs_input_grad[0]:
        decode = torch.ops.prism.bitmap_dual_shift_dequantize.default
        grad_x = grad @ decode(*ctx.saved_tensors, *ctx.grid, grad.dtype)
    if ctx.needs_input_grad[7]:
        grad_bias = grad.sum(0)
    return grad_x, *(None,) * 6, grad_bias, *(None,) * 5


torch.library.register_autograd("prism::bitmap_dual_shift_linear", _backward, setup_context=_setup_context)


def bitmap_dual_shift_linear(
    x: torch.Tensor,
    bitmap: torch.Tensor,
    codes: torch.Tensor,
    panel_offsets: torch.Tensor,
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
    """x @ weight^T + bias over the weight that `bitmap_dual_shift_dequantize` decodes; differentiable in x and bias.

    With bfloat16 x, a CPU with AVX512-BF16 multiplies bfloat16 values: x * column_scale and the levels of "nf4" and
    "nf3" are rounded to bfloat16, uniform codes are exact. Up to 8 tokens (16 where bits is not 4) of uniform codes in
    groups of at most 256 columns take 16-bit integers on a CPU with AVX-512 instead: each x * column_scale is rounded
    to a multiple of its group's largest / 32639.

    Args:
        x: [..., k], float32, float16 or bfloat16; finite.
        bitmap, codes, panel_offsets, scale, zero, column_scale, n, bits, group_size, codebook: as for
            `bitmap_dual_shift_dequantize`.
        bias: [n] in the dtype of x, or None.
        activation_bits: None multiplies x as it is; 8 rounds each token's x * column_scale to int8 first:
            s = max|x c| / 127 (1 where that is 0), q = round_half_even(x c / s), y = s * sum (code - zero) * scale * q.
            Uniform codebooks only. The gradient ignores this rounding.

    Returns:
        [..., n] in the dtype of x, summed in float32 and rounded once.
    """
    op = "bitmap_dual_shift_linear"
    tensors = (bitmap, codes, panel_offsets, scale, zero, column_scale)
    require_bitmap_dual_shift(op, *tensors, n=n, bits=bits, group_size=group_size, codebook=codebook)
    require_activation_bits(op, activation_bits, codebook)
    weight = tuple(t.contiguous() for t in tensors)
    return run_bitmap_dual_shift_linear(x, weight, bias, n, bits, group_size, codebook, activation_bits)


def run_bitmap_dual_shift_linear(
    x: torch.Tensor,
    weight: tuple[torch.Tensor, ...],
    bias: torch.Tensor | None,
    n: int,
    bits: int,
    group_size: int,
    codebook: str,
    activation_bits: int | None,
) -> torch.Tensor:
    """`bitmap_dual_shift_linear` of a weight (bitmap, codes, panel_offsets, scale, zero, column_scale) that is known to
    be sound: what `nn` calls."""
    overload = torch.ops.prism.bitmap_dual_shift_linear.default
    grid = (bits, group_size, codebook, activation_bits)
    return run_linear("bitmap_dual_shift_linear", overload, x, weight, bias, n, weight[5].shape[0], *grid)
