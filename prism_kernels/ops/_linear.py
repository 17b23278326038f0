"""What every linear over a packed weight does around its op: checks of x and bias, and the shape of both ends."""

import math
from collections.abc import Callable
from typing import Any

import torch

from ._check import FLOAT_DTYPES, require, require_float, require_tensor
from ._define import call


def run_linear(
    op: str,
    overload: Callable,
    x: torch.Tensor,
    weight: tuple[torch.Tensor, ...],
    bias: torch.Tensor | None,
    n: int,
    k: int,
    *options: Any,
) -> torch.Tensor:
    """y [..., n] = the op `overload` on x [..., k], the tensors of a weight [n, k], bias [n] in x.dtype, n and options.

    Checks x and bias, but not the weight: modules made sure of theirs when they were built.
    """
    sound = isinstance(x, torch.Tensor) and x.dtype in FLOAT_DTYPES and x.dim() > 0 and x.shape[-1] == k
    if not (sound and x.device == weight[0].device):
        _refuse_x(op, x, k, weight[0].device)
    if bias is not None and (bias.dtype != x.dtype or bias.dim() != 1 or bias.shape[0] != n or bias.device != x.device):
        require_tensor(bias, op, "bias", shape=(n,), dtype=x.dtype, device=x.device)
    if x.dim() == 2:
        return call(overload, x.contiguous(), *weight, bias, n, *options)
    y = call(overload, x.reshape(math.prod(x.shape[:-1]), k).contiguous(), *weight, bias, n, *options)
    return y.reshape(*x.shape[:-1], n)


def _refuse_x(op: str, x: torch.Tensor, k: int, device: torch.device) -> None:
    require_float(x, op, "x")
    require(x.dim() >= 1, op, "x", "have at least 1 dimension", x.dim())
    require_tensor(x, op, "x", shape=(*x.shape[:-1], k), device=device)
