"""Whether a linear that is about to be timed computes what it should: a check on the spot, under the same kernel."""

import torch
import torch.nn.functional as F
from torch import nn

from prism_kernels import dispatch
from prism_kernels.nn import PackedLinear
from prism_kernels.testing import assert_matches

#: Rows of the small problem: whole panels and a panel cut short.
SMALL_ROWS = 67


def check_small(module: PackedLinear, x: torch.Tensor) -> None:
    """`module` on x [m, k] equals the float64 reference of its own decoded weight, within the tests' tolerance."""
    y = module(x)
    assert_matches(y, reference(module, x), x.shape[1])


def reference(module: PackedLinear, x: torch.Tensor) -> torch.Tensor:
    """float64 [m, n]: x, quantized where the module quantizes activations, times the decoded weight; that is rounded to
    the dtype of x where this number of tokens takes the dense path."""
    bits = getattr(module, "activation_bits", None)
    if bits is None and takes_dense_path(module, x):
        return x.double() @ module.to_dense(x.dtype).double().T
    weight = module.to_dense(torch.float32).double()
    if bits is None:
        return x.double() @ weight.T
    column = module.column_scale.float()
    return quantized_activations(x, column) / column.double() @ weight.T


def takes_dense_path(module: PackedLinear, x: torch.Tensor) -> bool:
    return dispatch.prefers_dense(module.op_for(x), x)


def quantized_activations(x: torch.Tensor, column_scale: torch.Tensor) -> torch.Tensor:
    """s * q of x * column_scale, per token symmetric int8, float64 [m, k]."""
    scaled = x.float() * column_scale
    step = scaled.abs().amax(-1, keepdim=True) / 127
    step = torch.where(step > 0, step, 1.0)
    return (scaled / step).round().clamp(-127, 127).double() * step.double()


def assert_close_to_dense(y: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bound: float) -> None:
    """The timed output y against the dense product: catches what a small problem cannot (offsets, strides, threads)."""
    dense = F.linear(x.float(), weight.float())
    assert y.shape == dense.shape, f"shape {list(y.shape)}, expected {list(dense.shape)}"
    error = float((y.float() - dense).norm() / dense.norm())
    assert error <= bound, f"relative error {error:.3e} against the dense product exceeds {bound}"


def linear_of(weight: torch.Tensor) -> nn.Linear:
    """An `nn.Linear` without bias that shares `weight` [n, k]."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    return linear
