"""A linear over a weight in tiles of three tiers."""

import torch

from ..reference.tiered_linear import tiered_linear as reference
from ._check import require, require_float
from ._define import define
from ._linear import run_linear
from ._tiered import require_tiered


def _fake(x, tiers, masks, values, panel_offsets, bias, n):
    return x.new_empty(x.shape[0], n)


define(
    "tiered_linear(Tensor x, Tensor tiers, Tensor masks, Tensor values, Tensor panel_offsets, Tensor? bias, int n)"
    " -> Tensor",
    reference=reference,
    fake=_fake,
)


def _setup_context(ctx, inputs, output) -> None:
    x, *packed, _, n = inputs
    ctx.save_for_backward(*packed)
    ctx.sizes = n, x.shape[-1]


def _backward(ctx, grad):
    grad_x = grad_bias = None
    if ctx.needs_input_grad[0]:
        weight = torch.ops.prism.tiered_unpack.default(*ctx.saved_tensors, *ctx.sizes)
        grad_x = grad @ weight.to(grad.dtype)
    if ctx.needs_input_grad[5]:
        grad_bias = grad.sum(0)
    return grad_x, None, None, None, None, grad_bias, None


torch.library.register_autograd("prism::tiered_linear", _backward, setup_context=_setup_context)


def tiered_linear(
    x: torch.Tensor,
    tiers: torch.Tensor,
    masks: torch.Tensor,
    values: torch.Tensor,
    panel_offsets: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    n: int,
) -> torch.Tensor:
    """x @ weight^T + bias over the tensors of a `TieredWeight`; differentiable in x and bias, the weight is frozen.

    Args:
        x: [..., k], float32, float16 or bfloat16.
        tiers: uint8 [ceil(n / 16), ceil(k / 16)]: 0 dense, 1 2:4, 2 top-k, 3 empty.
        masks: uint8 [tiles of tier 1 or 2, 32].
        values: [kept], any of the three dtypes, whatever that of x.
        panel_offsets: int64 [ceil(n / 16) + 1, 2].
        bias: [n] in the dtype of x, or None.
        n: rows of the weight.

    Returns:
        [..., n] in the dtype of x, summed in float32 and rounded once.
    """
    require_float(x, "tiered_linear", "x")
    require(x.dim() >= 1, "tiered_linear", "x", "have at least 1 dimension", x.dim())
    require_tiered("tiered_linear", tiers, masks, values, panel_offsets, n, x.shape[-1], x.device)
    weight = (tiers.contiguous(), masks.contiguous(), values.contiguous(), panel_offsets.contiguous())
    return run_tiered_linear(x, weight, bias, n, x.shape[-1])


def run_tiered_linear(
    x: torch.Tensor,
    weight: tuple[torch.Tensor, ...],
    bias: torch.Tensor | None,
    n: int,
    k: int,
) -> torch.Tensor:
    """`tiered_linear` of a weight (tiers, masks, values, panel_offsets) that is known to be sound: what `nn` calls."""
    return run_linear("tiered_linear", torch.ops.prism.tiered_linear.default, x, weight, bias, n, k)
